"""What befalls the unmodified client when the local Eventhouse is told to fail.

They record what the client of this version makes of each answer, so that whoever builds on it can rely on it.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
import requests
from azure.kusto.data import ClientRequestProperties, KustoClient, KustoConnectionStringBuilder
from azure.kusto.data._cloud_settings import CloudSettings
from azure.kusto.data.exceptions import (
    KustoApiError,
    KustoMultiApiError,
    KustoNetworkError,
    KustoServiceError,
    KustoThrottlingError,
    KustoTokenParsingError,
)
from urllib3.exceptions import ProtocolError

from pipelined.local.eventhouse import Eventhouse
from pipelined.local.eventhouse.faults import FAULTS

ROWS = 40


@pytest.fixture(scope="module")
def running() -> Iterator[Eventhouse]:
    with Eventhouse() as server:
        server.command(".create table T (n:long, text:string)")
        server.ingest("T", [{"n": number, "text": "x" * 2000} for number in range(ROWS)])
        yield server


@pytest.fixture
def house(running: Eventhouse) -> Iterator[Eventhouse]:
    running.forget_requests()
    yield running
    running.clear_faults()
    running.change_settings(tokens=None)


@pytest.fixture
def client(house: Eventhouse) -> Iterator[KustoClient]:
    with KustoClient(KustoConnectionStringBuilder.with_no_authentication(house.url)) as client:
        yield client


def ask(client: KustoClient, **options: Any) -> list[list[Any]]:
    properties = ClientRequestProperties()
    for name, value in options.items():
        properties.set_option(name, value)
    answer = client.execute("events", "T | order by n asc", properties)
    rows: list[list[Any]] = answer.primary_results[0].raw_rows
    return rows


def stream(client: KustoClient) -> list[Any]:
    found: list[Any] = []
    stream_into(client, found)
    return found


def stream_into(client: KustoClient, found: list[Any]) -> None:
    answer = client.execute_streaming_query("events", "T | order by n asc", timedelta(minutes=1))
    for table in answer.iter_primary_results():
        found.extend(row["n"] for row in table)


def status_of(error: BaseException) -> int | None:
    """The HTTP status that an error of the client carries."""
    response = getattr(error, "http_response", None)
    if response is None and len(error.args) > 1:
        response = error.args[1]
    return None if response is None else int(response.status_code)


#: The fault, what execute() raises, the status it carries, what execute_streaming_query() raises.
MATRIX: list[tuple[str, type[Exception], int | None, type[Exception]]] = [
    ("throttled", KustoThrottlingError, 429, KustoThrottlingError),
    ("throttled-empty", KustoThrottlingError, 429, requests.JSONDecodeError),
    ("throttled-html", KustoThrottlingError, 429, requests.JSONDecodeError),
    ("bad-gateway", KustoServiceError, 502, requests.JSONDecodeError),
    ("unavailable", KustoServiceError, 503, requests.JSONDecodeError),
    ("unavailable-empty", KustoServiceError, 503, requests.JSONDecodeError),
    ("too-large", KustoServiceError, 413, requests.JSONDecodeError),
    ("redirect", KustoServiceError, 302, requests.JSONDecodeError),
    ("timeout", KustoApiError, 504, KustoApiError),
    ("internal", KustoApiError, 500, KustoApiError),
    ("service-error", KustoApiError, 520, KustoApiError),
    ("no-error", KeyError, None, KeyError),
    ("list", TypeError, None, TypeError),
    ("semantic", KustoApiError, 400, KustoApiError),
    ("syntax", KustoApiError, 400, KustoApiError),
    ("unauthorized", KustoServiceError, 401, requests.JSONDecodeError),
    ("unauthorized-json", KustoServiceError, 401, KustoServiceError),
    ("forbidden", KustoApiError, 403, KustoApiError),
    ("not-found", KustoServiceError, 404, KustoServiceError),
    ("empty", KustoServiceError, 200, KustoTokenParsingError),
    ("login-page", KustoServiceError, 200, KustoTokenParsingError),
    ("error-object", TypeError, None, KustoTokenParsingError),
    ("close", KustoNetworkError, None, KustoNetworkError),
    ("reset", KustoNetworkError, None, KustoNetworkError),
]


@pytest.mark.parametrize(("kind", "error", "status"), [row[:3] for row in MATRIX], ids=[r[0] for r in MATRIX])
def test_what_a_query_raises(
    house: Eventhouse, client: KustoClient, kind: str, error: type[Exception], status: int | None
) -> None:
    house.fault(kind)
    with pytest.raises(error) as raised:
        ask(client)
    assert type(raised.value) is error
    assert status_of(raised.value) == status
    assert len(ask(client)) == ROWS, "the next request is well again"
    assert [request["fault"] for request in house.requests()] == [kind, None]


@pytest.mark.parametrize(("kind", "error"), [(r[0], r[3]) for r in MATRIX], ids=[r[0] for r in MATRIX])
def test_what_a_streamed_query_raises(
    house: Eventhouse, client: KustoClient, kind: str, error: type[Exception]
) -> None:
    house.fault(kind)
    with pytest.raises(error) as raised:
        stream(client)
    assert type(raised.value) is error
    assert len(stream(client)) == ROWS


@pytest.mark.parametrize(
    ("kind", "permanent", "code"),
    [
        ("timeout", False, "RequestExecutionTimeout"),
        ("internal", False, "General_InternalServerError"),
        ("service-error", False, "ServiceError"),
        ("semantic", True, "General_BadRequest"),
        ("syntax", True, "BadRequest_SyntaxError"),
        ("forbidden", True, "Forbidden"),
    ],
)
def test_an_error_of_the_service_says_what_it_is(
    house: Eventhouse, client: KustoClient, kind: str, permanent: bool, code: str
) -> None:
    house.fault(kind)
    with pytest.raises(KustoApiError) as raised:
        ask(client)
    assert raised.value.error.permanent is permanent
    assert raised.value.error.code == code
    assert str(raised.value.error.type).startswith("Kusto.Data.Exceptions.")
    assert raised.value.is_semantic_error() is (kind == "semantic")


@pytest.mark.parametrize("said", ["7", "Wed, 21 Oct 2026 07:28:00 GMT", None])
def test_throttling_may_say_when_to_come_again(
    house: Eventhouse, client: KustoClient, said: str | None
) -> None:
    house.fault("throttled", retry_after=said)
    with pytest.raises(KustoThrottlingError) as raised:
        ask(client)
    assert raised.value.args[1].headers.get("Retry-After") == said
    assert "throttling" in raised.value.args[1].json()["error"]["@message"]


def test_any_answer_can_be_ordered(house: Eventhouse, client: KustoClient) -> None:
    house.fault(
        "answer", status=418, body='{"error": {"code": "Teapot", "message": "no"}}', headers={"X-A": "b"}
    )
    with pytest.raises(KustoApiError) as raised:
        ask(client)
    assert raised.value.error.code == "Teapot"
    assert raised.value.http_response is not None
    assert raised.value.http_response.headers["X-A"] == "b"


@pytest.mark.parametrize("rows", [0, 5])
def test_an_answer_cut_in_its_middle_is_a_network_error(
    house: Eventhouse, client: KustoClient, rows: int
) -> None:
    house.fault("cut", rows=rows, times=2)
    with pytest.raises(KustoNetworkError) as raised:
        ask(client)
    assert raised.value.http_response is None
    found: list[Any] = []
    with pytest.raises(ProtocolError):
        stream_into(client, found)
    assert len(found) <= rows
    assert len(ask(client)) == ROWS


def test_an_answer_that_ends_too_early_is_no_json(house: Eventhouse, client: KustoClient) -> None:
    house.fault("short", rows=5)
    with pytest.raises(KustoServiceError) as raised:
        ask(client)
    assert status_of(raised.value) == 200


def test_a_reset_after_the_head_is_a_network_error(house: Eventhouse, client: KustoClient) -> None:
    house.fault("reset-after-head")
    with pytest.raises(KustoNetworkError):
        ask(client)
    assert len(ask(client)) == ROWS


def test_an_error_among_the_rows_takes_them_all(house: Eventhouse, client: KustoClient) -> None:
    house.fault("error-in-rows", rows=5, text="not enough memory (E_LOW_MEMORY_CONDITION)", times=2)
    with pytest.raises(KustoMultiApiError, match="E_LOW_MEMORY_CONDITION") as raised:
        ask(client)
    (error,) = raised.value.get_api_errors()
    assert error.code == "LimitsExceeded"
    assert error.permanent is False
    assert raised.value.has_partial_results() is False
    found: list[Any] = []
    with pytest.raises(KustoMultiApiError):
        stream_into(client, found)
    assert found == [0, 1, 2, 3, 4]


def test_an_error_told_at_the_end_only_is_not_seen(house: Eventhouse, client: KustoClient) -> None:
    house.fault("error-at-end", rows=5)
    answer = client.execute("events", "T")
    assert len(answer.primary_results[0].raw_rows) == 5
    assert answer.errors_count == 0


def test_a_partial_failure_is_counted(house: Eventhouse, client: KustoClient) -> None:
    house.fault("partial", rows=5)
    answer = client.execute("events", "T")
    assert len(answer.primary_results[0].raw_rows) == 5
    assert answer.errors_count == 1
    assert "E_QUERY_RESULT_SET_TOO_LARGE" in answer.get_exceptions()[0]


def timed(act: Callable[[], object]) -> float:
    begun = time.monotonic()
    act()
    return time.monotonic() - begun


def test_an_answer_may_be_late_or_come_row_by_row(house: Eventhouse, client: KustoClient) -> None:
    house.fault("delay", seconds=0.4)
    assert timed(lambda: ask(client)) >= 0.4
    house.fault("slow", seconds=0.02)
    assert timed(lambda: ask(client)) >= 0.02 * ROWS


def test_a_hang_ends_with_the_clients_patience(house: Eventhouse) -> None:
    house.fault("hang")
    with requests.Session() as session, pytest.raises(requests.ReadTimeout):
        session.post(f"{house.url}/v2/rest/query", json={"db": "events", "csl": "T"}, timeout=0.3)


def test_a_hang_ends_when_the_faults_are_cleared(house: Eventhouse, client: KustoClient) -> None:
    house.fault("hang")
    failures: list[Exception] = []

    def hang() -> None:
        try:
            ask(client)
        except KustoNetworkError as error:
            failures.append(error)

    waiting = threading.Thread(target=hang)
    waiting.start()
    deadline = time.monotonic() + 20
    while not house.requests() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert waiting.is_alive()
    house.clear_faults()
    waiting.join(20)
    assert len(failures) == 1


def test_a_connection_may_be_closed_while_idle(house: Eventhouse, client: KustoClient) -> None:
    house.fault("close-idle")
    ask(client)
    ask(client)
    ask(client)
    first, second, third = (request["connection"] for request in house.requests())
    assert first != second == third


def test_a_fault_chooses_its_requests(house: Eventhouse, client: KustoClient) -> None:
    house.fault("throttled", contains="T | count", skip=1, times=2)
    assert len(ask(client)) == ROWS
    outcomes = []
    for _ in range(4):
        try:
            outcomes.append(client.execute("events", "T | count").primary_results[0].raw_rows[0][0])
        except KustoThrottlingError:
            outcomes.append("throttled")
    assert outcomes == [ROWS, "throttled", "throttled", ROWS]
    house.fault("forbidden", endpoint="mgmt", times=None)
    assert len(ask(client)) == ROWS
    for _ in range(3):
        with pytest.raises(KustoApiError, match="not authorized"):
            client.execute("events", ".show tables")


def test_a_token_is_let_in_until_it_is_not(house: Eventhouse) -> None:
    tokens = ["old"]
    builder = KustoConnectionStringBuilder.with_token_provider(house.url, lambda: tokens[0])
    house.change_settings(tokens=["old"])
    with KustoClient(builder) as client:
        assert len(ask(client)) == ROWS
        house.change_settings(tokens=["new"])
        with pytest.raises(KustoServiceError, match="401") as raised:
            ask(client)
        assert raised.value.http_response is not None
        assert "Bearer" in raised.value.http_response.headers["WWW-Authenticate"]
        assert raised.value.http_response.content == b""
        tokens[0] = "new"
        assert len(ask(client)) == ROWS


@pytest.fixture
def metadata(house: Eventhouse, monkeypatch: pytest.MonkeyPatch) -> Callable[[], str]:
    """Ask for the cluster's metadata as the client does, and what it says where to log in."""
    monkeypatch.setattr(CloudSettings, "_cloud_cache", {})
    return lambda: str(CloudSettings.get_cloud_info_for_cluster(house.url).login_endpoint)


def test_the_metadata_say_where_to_log_in(house: Eventhouse, metadata: Callable[[], str]) -> None:
    house.change_settings(login_endpoint="https://login.example")
    assert metadata() == "https://login.example"
    assert house.requests()[-1]["endpoint"] == "metadata"


def test_the_metadata_may_not_be_had(house: Eventhouse, metadata: Callable[[], str]) -> None:
    house.fault("unavailable", endpoint="metadata")
    with pytest.raises(KustoServiceError, match="invalid cloud metadata"):
        metadata()
    house.fault("not-found", endpoint="metadata")
    assert metadata() == "https://login.microsoftonline.com", "what the client takes when there are none"


def test_the_metadata_may_hang(house: Eventhouse, metadata: Callable[[], str]) -> None:
    house.fault("hang", endpoint="metadata", seconds=0.5)
    begun = time.monotonic()
    with pytest.raises(KustoNetworkError):
        metadata()
    assert time.monotonic() - begun >= 0.5


def test_properties_may_be_an_object_as_in_the_documentation(house: Eventhouse) -> None:
    body = {
        "db": "events",
        "csl": "declare query_parameters(wanted:long); T | where ['n'] == wanted | project ['n']",
        "properties": {"Options": {"request_readonly": True}, "Parameters": {"wanted": 3}},
    }
    answer = requests.post(f"{house.url}/v2/rest/query", json=body, timeout=20)
    assert answer.status_code == 200
    assert [frame["Rows"] for frame in answer.json() if frame.get("TableKind") == "PrimaryResult"] == [[[3]]]
    assert house.requests()[-1]["options"] == {"request_readonly": True}


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"db": "events"}', b'{"csl": "T", "properties": "x"}'])
def test_a_body_that_is_no_request_is_refused(house: Eventhouse, body: bytes) -> None:
    answer = requests.post(f"{house.url}/v2/rest/query", data=body, timeout=20)
    assert answer.status_code == 400
    assert json.loads(answer.content)["error"]["@permanent"] is True


def test_a_path_of_another_service_is_not_found(house: Eventhouse) -> None:
    assert requests.get(f"{house.url}/v1/rest/nothing", timeout=20).status_code == 404


def test_every_fault_is_described_and_tried() -> None:
    tried = {row[0] for row in MATRIX} | {
        "answer",
        "cut",
        "short",
        "reset-after-head",
        "error-in-rows",
        "error-at-end",
        "partial",
        "delay",
        "slow",
        "hang",
        "close-idle",
    }
    assert tried == set(FAULTS)
    assert all(FAULTS.values())
