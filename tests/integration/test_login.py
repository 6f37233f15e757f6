"""Every method of login, through msal as it is, against a login service on loopback."""

from __future__ import annotations

import base64
import hashlib
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from entra import Answer, Entra, certificate, pem, serving
from pipelined.auth import STORAGE_SCOPE, TokenProvider, provider
from pipelined.config.auth import Auth
from pipelined.errors import AuthError, DependencyError

APPLICATION, TENANT = "11111111-2222-3333-4444-555555555555", "contoso.example"
SECRET = "hunter2~value"


@pytest.fixture
def entra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Entra]:
    monkeypatch.setenv("APP_SECRET", SECRET)
    with serving(tmp_path, monkeypatch) as made:
        yield made


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Entra]:
    """What tells a machine in Azure its identity."""
    for name in ("IDENTITY_ENDPOINT", "IDENTITY_HEADER", "MSI_ENDPOINT", "MSI_SECRET"):
        monkeypatch.delenv(name, raising=False)
    with serving(tmp_path, monkeypatch, tls=False) as made:
        monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", made.url)
        # Nothing answers there: a proxy has nothing to do with it.
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
        monkeypatch.delenv("NO_PROXY")
        yield made


@pytest.fixture
def login(entra: Entra) -> Iterator[Any]:
    """Make a provider that logs in at ``entra``; it is closed at the end."""
    made: list[TokenProvider] = []

    def make(method: str = "client_secret", **keys: Any) -> TokenProvider:
        given = {"tenant_id": TENANT, "client_id": APPLICATION, "authority": entra.url, **keys}
        if method == "client_secret":
            given.setdefault("client_secret", "env:APP_SECRET")
        made.append(provider(Auth(method=method, **given), STORAGE_SCOPE, section="upload.auth"))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_an_application_logs_in_by_its_secret(entra: Entra, login: Any) -> None:
    assert login().token() == "token-1"
    assert entra.paths == [f"/{TENANT}/oauth2/v2.0/token"]
    (form,) = entra.asked
    assert (form["client_id"], form["client_secret"]) == (APPLICATION, SECRET)
    assert (form["grant_type"], form["scope"]) == ("client_credentials", STORAGE_SCOPE)


def test_a_configured_scope_is_asked_for(entra: Entra, login: Any) -> None:
    login(scope="https://other.example/.default").token()
    assert entra.asked[0]["scope"] == "https://other.example/.default"


def test_a_token_in_hand_is_given_without_a_login_and_a_refused_one_never_again(
    entra: Entra, login: Any
) -> None:
    tokens = login()
    assert [tokens.token(), tokens.token()] == ["token-1", "token-1"]
    tokens.refresh("token-1")
    assert tokens.token() == "token-2"
    tokens.refresh("token-1")  # of another thread, which was refused the same token
    assert tokens.token() == "token-2"
    assert len(entra.asked) == 2


def test_a_secret_that_was_mended_is_used_at_the_next_login(
    entra: Entra, login: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As Entra answers a wrong secret, and once more with the status that msal remembers for a minute.
    for status in (401, 400):
        entra.refuse(7000215, "Invalid client secret provided.", status)
        tokens = login()
        with pytest.raises(AuthError, match="client_secret must be the value of the secret") as caught:
            tokens.token()
        assert caught.value.code == "login_refused"
        assert "AADSTS7000215" in str(caught.value)
        assert SECRET not in str(caught.value)
        entra.answer = None
        monkeypatch.setattr(tokens, "_told_until", 0.0)
        assert tokens.token().startswith("token-")


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (7000222, "has expired: make a new one"),
        (700016, "check client_id and tenant_id"),
        (700024, "check this machine's clock"),
        (500011, "check scope"),
        (99999999, "check the keys of this section"),
    ],
)
def test_a_refused_login_says_what_to_do(entra: Entra, login: Any, number: int, advice: str) -> None:
    entra.refuse(number, "So it is.", 400, "invalid_request")
    with pytest.raises(AuthError) as caught:
        login().token()
    text = str(caught.value)
    assert text.startswith(f"upload.auth: the login of application {APPLICATION} in tenant {TENANT} was")
    assert advice in text
    assert f"AADSTS{number}: So it is." in text


def test_a_tenant_that_does_not_exist_is_an_operators_matter(entra: Entra, login: Any) -> None:
    error = {
        "error": "invalid_tenant",
        "error_description": "AADSTS90002: Tenant 'contoso.example' not found.",
    }
    entra.discovery = Answer(400, error)
    with pytest.raises(AuthError, match=TENANT) as caught:
        login().token()
    assert "check tenant_id" in str(caught.value) or "check the keys" in str(caught.value)
    assert entra.asked == []


@pytest.mark.parametrize(
    "answer",
    [
        Answer(500, text="oops"),
        Answer(503, {"error": "temporarily_unavailable"}),
        Answer(429, {"error": "too_many_requests"}, headers={"Retry-After": "7"}),
        Answer(429, text="<html>slow down</html>", headers={"Retry-After": "7"}),
        Answer(200, text="<html>Sign in to the guest network</html>"),
        Answer(200, {"token_type": "Bearer"}),
        Answer(200, []),
        Answer(200, text=""),
        Answer(302, text="", headers={"Location": "https://127.0.0.1:9/elsewhere"}),
        Answer(200, {"access_token": "two\r\nlines", "expires_in": 3600}),
    ],
    ids=str,
)
def test_a_login_service_that_does_not_do_its_part_is_down(entra: Entra, login: Any, answer: Answer) -> None:
    entra.answer = lambda _form: answer
    with pytest.raises(DependencyError) as caught:
        login().token()
    assert caught.value.code == "login_down"
    assert caught.value.retry_after == (7 if answer.status == 429 else None)
    assert len(entra.asked) == 1, "a secret stays where it was sent to"


@pytest.mark.parametrize(
    "answer", [Answer(503, text="x"), Answer(200, text="<html>"), Answer(200, {})], ids=str
)
def test_a_discovery_that_does_not_answer_is_no_matter_of_the_tenant(
    entra: Entra, login: Any, answer: Answer
) -> None:
    entra.discovery = answer
    with pytest.raises(DependencyError, match=f"HTTP {answer.status}") as caught:
        login().token()
    assert caught.value.code == "login_down"


def test_a_login_service_that_cannot_be_reached_is_down(login: Any) -> None:
    with pytest.raises(DependencyError, match="cannot be reached") as caught:
        login(authority="https://127.0.0.1:9").token()
    assert caught.value.code == "login_unreachable"


def test_a_login_service_with_a_certificate_nobody_knows_is_told_no_secret(
    entra: Entra, login: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    with pytest.raises(DependencyError, match="certificate verify failed"):
        login().token()
    assert entra.asked == []


def test_a_secret_is_told_to_known_login_services_only(login: Any) -> None:
    with pytest.raises(AuthError, match=r"may not be sent to https://login\.example"):
        login(authority="https://login.example").token()


@pytest.mark.parametrize("password", ["", "pass word"])
def test_an_application_logs_in_by_its_certificate_and_shows_its_chain(
    entra: Entra, login: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, password: str
) -> None:
    authority, key = (rsa.generate_private_key(65537, 2048) for _ in range(2))
    issuer = certificate(authority, "our authority")
    own = certificate(key, "our application", (authority, "our authority"))
    file = tmp_path / "app.pem"
    file.write_text("\ufeff" + issuer + own + pem(key, password))  # in no particular order
    monkeypatch.setenv("KEY_PASSWORD", password)
    reference = "env:KEY_PASSWORD" if password else ""
    login("certificate", certificate_file=str(file), certificate_password=reference).token()
    assertion = entra.asked[0]["client_assertion"]
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    audience = f"{entra.url}/{TENANT}/oauth2/v2.0/token"
    claims = jwt.decode(assertion, public, algorithms=["RS256"], audience=audience)
    assert (claims["iss"], claims["sub"]) == (APPLICATION, APPLICATION)
    headers = jwt.get_unverified_header(assertion)
    shown = [x509.load_der_x509_certificate(base64.b64decode(each)) for each in headers["x5c"]]
    names = [each.subject.rfc4514_string() for each in shown]
    assert names == ["CN=our application", "CN=our authority"], "its own first, as RFC 7515 wants it"
    thumbprint = hashlib.sha1(shown[0].public_bytes(serialization.Encoding.DER)).digest()
    assert base64.urlsafe_b64decode(headers["x5t"]) == thumbprint


def test_a_certificate_file_that_cannot_be_used_says_why(login: Any, tmp_path: Path) -> None:
    key, other = (rsa.generate_private_key(65537, 2048) for _ in range(2))
    curve = ec.generate_private_key(ec.SECP256R1())
    file = tmp_path / "app.pem"
    contents = {
        "": "holds no private key",
        pem(key): "holds no certificate",
        certificate(key): "holds no private key",
        pem(key) + certificate(other): "no certificate that belongs to its private key",
        pem(curve) + certificate(curve): "not RSA",
        pem(key, "x") + certificate(key): "cannot be read with no password",
    }
    told = {}
    for content in contents:
        file.write_text(content)
        with pytest.raises(AuthError) as caught:
            login("certificate", certificate_file=str(file)).token()
        told[content] = str(caught.value)
    assert all(contents[content] in text for content, text in told.items())
    assert all(text.startswith(f"upload.auth.certificate_file: {file} ") for text in told.values())
    file.unlink()
    with pytest.raises(AuthError, match="No such file"):
        login("certificate", certificate_file=str(file)).token()


def test_a_federated_token_is_read_again_at_each_login(
    entra: Entra, login: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "federated"
    monkeypatch.setenv("AZURE_CLIENT_ID", "from-the-environment")
    monkeypatch.setenv("AZURE_TENANT_ID", TENANT)
    monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", str(file))
    tokens = login("workload_identity", client_id="", tenant_id="")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for proof in ("first", "second"):
            file.write_text(proof + "\n")
            tokens.token()
            tokens.refresh()
    assert [form["client_assertion"] for form in entra.asked] == ["first", "second"]
    assert entra.asked[0]["client_id"] == "from-the-environment"
    assert entra.asked[0]["client_assertion_type"].endswith("jwt-bearer")


def test_a_federated_login_without_its_parts_says_which(
    login: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AZURE_CLIENT_ID", "AZURE_FEDERATED_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(AuthError, match=r"upload\.auth\.client_id is not set, .* AZURE_CLIENT_ID"):
        login("workload_identity", client_id="").token()
    with pytest.raises(AuthError, match=r"upload\.auth\.token_file is not set"):
        login("workload_identity").token()
    with pytest.raises(AuthError, match=r"upload\.auth\.token_file: .* cannot be read"):
        login("workload_identity", token_file=str(tmp_path / "absent")).token()


@pytest.mark.parametrize("client_id", ["", APPLICATION])
def test_a_machine_logs_in_by_the_identity_it_was_given(machine: Entra, login: Any, client_id: str) -> None:
    machine.answer = lambda _query: Answer(body={"access_token": "of-the-machine", "expires_in": "86400"})
    tokens = login("managed_identity", client_id=client_id, tenant_id="")
    assert tokens.token() == "of-the-machine"
    assert machine.paths == ["/metadata/identity/oauth2/token"]
    assert machine.asked[0]["resource"] == "https://storage.azure.com"
    assert machine.asked[0].get("client_id", "") == client_id
    assert machine.headers[0]["Metadata"] == "true"


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Answer(400, {"error": "invalid_request", "error_description": "Identity not found"}), AuthError),
        (Answer(404, {"error": "not_found", "error_description": "not yet"}), DependencyError),
        (Answer(410, text="gone"), DependencyError),
        (Answer(429, {"error": "throttled"}), DependencyError),
        (Answer(500, {"error": {"code": "500", "message": "oops"}}), DependencyError),
    ],
    ids=str,
)
def test_a_machine_without_the_identity_is_told_from_one_that_cannot_say_it_now(
    machine: Entra, login: Any, answer: Answer, kind: type[Exception]
) -> None:
    machine.answer = lambda _query: answer
    with pytest.raises(kind) as caught:
        login("managed_identity").token()
    said = answer.text or json.dumps(answer.body)
    assert str(caught.value).startswith("upload.auth: ")
    assert any(word in str(caught.value) for word in ("Identity not found", "HTTP")), said
