"""What a login needs, found before anything is started."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipelined.config.checks import run, run_here
from pipelined.config.leaves import built

SECTIONS = ("eventhouse.auth", "eventhub.auth", "upload.auth", "tables.auth")
ONELAKE = "abfss://ws@onelake.dfs.fabric.microsoft.com/lake.Lakehouse/Files"


def told(values: dict[str, Any]) -> list[str]:
    return [problem.text for problem in run(built(values))]


@pytest.mark.parametrize("section", SECTIONS)
@pytest.mark.parametrize(
    ("method", "needed"),
    [
        ("client_secret", ["tenant_id", "client_id", "client_secret"]),
        ("certificate", ["tenant_id", "client_id", "certificate_file"]),
        ("token_file", ["token_file"]),
        ("managed_identity", []),
        ("workload_identity", []),
        ("az_cli", []),
        ("none", []),
    ],
)
def test_what_a_method_needs_is_told_by_its_key(section: str, method: str, needed: list[str]) -> None:
    found = told({f"{section}.method": method, "upload.url": ONELAKE, "tables.url": ONELAKE})
    assert found == [f'{section}.{name}: needed with {section}.method = "{method}"' for name in needed]


@pytest.mark.parametrize("section", SECTIONS)
@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("tenant_id", "contoso/../other"),
        ("tenant_id", "a b"),
        ("client_id", "env:CLIENT"),
        ("scope", "https://kusto.kusto.windows.net"),
        ("scope", "/.default "),
        ("certificate_file", "app.pem"),
        ("token_file", "~/token"),
        ("authority", "http://login.microsoftonline.com"),
        ("authority", "https://login.microsoftonline.com/tenant"),
        ("authority", "https://login.example"),
        ("authority", "https://login.microsoftonline.com.evil.example"),
        ("authority", "https://[login"),
        ("authority", "http://127.0.0.1:8080"),
        ("authority", ""),
    ],
)
def test_what_cannot_be_is_told_with_its_key(section: str, name: str, wrong: str) -> None:
    (text,) = told({f"{section}.{name}": wrong})
    assert text.startswith(f'{section}.{name}: "{wrong}" is not allowed: expected ')


@pytest.mark.parametrize("authority", ["https://login.microsoftonline.us/", "https://127.0.0.1:8443"])
def test_another_cloud_or_this_machine_may_be_the_login_service(authority: str) -> None:
    assert told({"eventhouse.auth.authority": authority}) == []


@pytest.mark.parametrize("name", ["upload", "tables"])
@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("s3://bucket/x", "takes no bearer token"),
        ("gs://bucket/x", "takes no bearer token"),
        ("abfss://ws@onelake.evil.example/x", "no token is sent to onelake.evil.example"),
        ("abfss://ws@dfs.core.windows.net.evil.example/x", "no token is sent to"),
    ],
)
def test_a_token_goes_to_no_store_but_microsofts(name: str, url: str, words: str) -> None:
    values = {f"{name}.url": url, f"{name}.auth.method": "managed_identity"}
    (text,) = told(values)
    assert words in text
    assert told({**values, f"{name}.auth.method": "none"}) == []


@pytest.mark.parametrize(
    "url",
    [ONELAKE, "abfss://c@account.dfs.core.windows.net/x", "az://container/x", "file:///var/lib/pipelined/f"],
)
def test_a_store_of_microsofts_may_be_logged_in_to(url: str) -> None:
    assert told({"upload.url": url, "upload.auth.method": "managed_identity"}) == []


def test_files_and_variables_that_a_login_relies_on_are_looked_for_here(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("x")
    values = {
        "eventhouse.auth.method": "workload_identity",
        "eventhouse.auth.client_id": "given",
        "eventhub.auth.method": "certificate",
        "eventhub.auth.certificate_file": str(tmp_path / "absent"),
        "upload.auth.method": "token_file",
        "upload.auth.token_file": str(tmp_path / "there"),
        "tables.auth.method": "none",
        "tables.auth.token_file": str(tmp_path / "absent and not needed"),
    }
    config = built(values)
    environ = {"AZURE_FEDERATED_TOKEN_FILE": str(tmp_path / "federated")}
    assert [problem.text for problem in run_here(config, environ)] == [
        "eventhouse.auth.tenant_id: needed, since the variable AZURE_TENANT_ID is not set",
        f"eventhouse.auth.token_file: {tmp_path / 'federated'} cannot be read",
        f"eventhub.auth.certificate_file: {tmp_path / 'absent'} cannot be read",
    ]
    environ = {"AZURE_FEDERATED_TOKEN_FILE": str(tmp_path / "there"), "AZURE_TENANT_ID": "contoso.example"}
    assert len(list(run_here(config, environ))) == 1
