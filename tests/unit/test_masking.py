"""Masking: nothing planted gets through, and what operators need stays."""

from __future__ import annotations

import json
import time

import pytest

from pipelined.logs.masking import is_secret_name, mask

PLANTED = "hunter2SECRET"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"

TEXTS = [
    f"GET https://a.s3.amazonaws.com/k/F.PDF?X-Amz-Date=20260105T142230Z&X-Amz-Signature={PLANTED}",
    f"https://x.blob.core.windows.net/c/f?sv=2024&se=2026&sig={PLANTED}%3D failed",
    f"https://claims.example.org/f?systemDate=1&expires=2&sign={PLANTED}",
    f'"GET /k/GENERIC.PDF?X-Amz-Expires=86400&X-Amz-Signature={PLANTED} HTTP/1.1" 403',
    f"/k/f?a=b&amp;sig={PLANTED}",
    f"redirect=https%3A%2F%2Fa%2Ff%3FX-Amz-Date%3D1%26token%3D{PLANTED}",
    f"Authorization: Bearer {PLANTED}",
    f"authorization: bearer {PLANTED}.a-b_c~d+/=",
    f"{{'Authorization': 'Basic {PLANTED}=='}}",
    f"Endpoint=sb://x.servicebus.windows.net/;SharedAccessKeyName=listen;SharedAccessKey={PLANTED}=;EntityPath=e",
    f"AccountName=a;AccountKey={PLANTED}==;EndpointSuffix=core.windows.net",
    f"password={PLANTED}",
    f"sasl.password = {PLANTED}",
    f"{{'sasl.password': '{PLANTED} with spaces'}}",
    f'{{"client_secret": "{PLANTED} with spaces", "x": 1}}',
    json.dumps({"inner": json.dumps({"password": f"{PLANTED} with spaces"})}),
    f"password: {PLANTED}",
    f"PWD={PLANTED};",
    f"?access_token={PLANTED}&x=1",
    f"api-key: {PLANTED}",
    f"aws_secret_access_key={PLANTED}",
    f"token='{PLANTED} never closed",
    f"https://user:{PLANTED}@host/path",
    f"amqps://user:{PLANTED}@host:5671",
    f"-----BEGIN RSA PRIVATE KEY-----\nMIIE\n{PLANTED}\n-----END RSA PRIVATE KEY-----",
    f"-----BEGIN PRIVATE KEY-----\n{PLANTED}",
    f"SharedAccessSignature sr=a&sig={PLANTED}&se=1",
]


@pytest.mark.parametrize("text", TEXTS)
def test_a_planted_secret_is_hidden(text: str) -> None:
    assert PLANTED in text
    assert "hunter2" not in mask(text)
    assert "***" in mask(text)


@pytest.mark.parametrize("text", TEXTS)
def test_a_planted_secret_is_hidden_in_a_representation_and_in_json(text: str) -> None:
    assert "hunter2" not in mask(repr({"error": text}))
    assert "hunter2" not in mask(json.dumps({"error": text}))


def test_a_json_web_token_is_hidden_wherever_it_stands() -> None:
    assert mask(f"refused {JWT} at once") == "refused *** at once"


@pytest.mark.parametrize(
    "text",
    [
        "https://a.s3.amazonaws.com/k/F.PDF answered 403",
        "abfss://workspace@onelake.dfs.fabric.microsoft.com/item/Files/x",
        "kafka://127.0.0.1:9092 topic=xact.events.raw partition=3 offset=17 key=6f0c2b1e-8d3a-4c52",
        "trace_id=6f0c2b1e-8d3a-4c52-9a77-0e5d1b7c4f21 error_category=transient",
        "12:30:45 took 3.5 s; is it true? yes",
        "kafka.sasl_password (environment PIPELINED_KAFKA_SASL_PASSWORD): a secret goes by reference",
        "kafka.sasl_password is needed with security_protocol SASL_SSL",
        "upload.auth.client_secret, the secret file:/run/x: the file is empty",
        "",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert mask(text) == text


def test_what_stands_around_a_secret_stays() -> None:
    assert mask("https://a.b/c.pdf?sig=x failed: offset=3") == "https://a.b/c.pdf?*** failed: offset=3"
    assert mask("user=me password=x, host=h") == "user=me password=***, host=h"
    assert mask("{'password': 'a b', 'host': 'h'}") == "{'password': '***', 'host': 'h'}"


def test_masking_twice_is_masking_once() -> None:
    for text in TEXTS:
        assert mask(mask(text)) == mask(text)


@pytest.mark.parametrize(
    "piece",
    ["x", "://", "password=", "password='", "Bearer ", "eyJ", "a.", "?sig=", "-----BEGIN ", " ", "\\"],
)
def test_a_hostile_text_costs_no_more_than_its_length(piece: str) -> None:
    text = piece * (200_000 // len(piece))
    started = time.perf_counter()
    mask(text)
    assert time.perf_counter() - started < 5


@pytest.mark.parametrize(
    "name", ["password", "sasl_password", "Authorization", "sig", "client_secret", "api_key"]
)
def test_a_field_that_holds_a_secret_is_known_by_its_name(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize("name", ["key", "topic", "design", "secrets_read", "tokens_expire_at", "error"])
def test_other_fields_are_not_taken_for_secrets(name: str) -> None:
    assert not is_secret_name(name)
