"""Logging in by an IAM identity.

The OpenBao of these tests has no such auth method, and AWS is not asked: what stands at ``vault.address`` here is **no
Vault** but an HTTP server that keeps what it is sent. That the request to STS in it is signed as AWS wants it is
checked by botocore, the library by which AWS's own tools sign.
"""

import json
from base64 import b64decode
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from pydantic import ValidationError

from tests.vault.logins import login_adapter
from woodpecker_vault.errors import Unavailable
from woodpecker_vault.vault.connection import Connection
from woodpecker_vault.vault.logins import Grant, aws
from woodpecker_vault.vault.logins.aws import Aws

# hvac dates its signature by a function that Python 3.12 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning")

ANSWER = {"auth": {"client_token": "hvs.aws", "lease_duration": 60, "renewable": True, "token_type": "service"}}


@dataclass
class Kept:
    """What was sent, by path."""

    address: str = ""
    logins: list[tuple[str, dict[str, Any]]] = field(default_factory=list)


@asynccontextmanager
async def keeping() -> AsyncIterator[Kept]:
    """The server, until the block ends."""
    kept = Kept()

    async def keep(request: web.Request) -> web.Response:
        kept.logins.append((request.path, await request.json()))
        return web.json_response(ANSWER)

    application = web.Application()
    application.router.add_post("/{path:.*}", keep)
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        kept.address = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield kept
    finally:
        await runner.cleanup()


@pytest.fixture(autouse=True)
def nothing_of_aws(monkeypatch: pytest.MonkeyPatch) -> None:
    """No credentials anywhere, and no network where to ask for some."""
    for variable in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN", "PROFILE", "WEB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(f"AWS_{variable}", raising=False)
    for variable in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "BOTO_CONFIG"):
        monkeypatch.setenv(variable, "/nowhere")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def signature_by_botocore(document: Mapping[str, str], secret_key: str, region: str) -> str:
    """The signature that AWS's own library puts under the request to STS in a login."""
    headers = {name: values[0] for name, values in json.loads(b64decode(document["iam_request_headers"])).items()}
    access_key = headers.pop("Authorization").partition("Credential=")[2].partition("/")[0]
    request = AWSRequest(
        method=document["iam_http_request_method"],
        url=b64decode(document["iam_request_url"]).decode(),
        headers=headers,
        data=b64decode(document["iam_request_body"]),
    )
    request.context["timestamp"] = headers["X-Amz-Date"]
    auth = SigV4Auth(Credentials(access_key, secret_key, headers.get("X-Amz-Security-Token")), "sts", region)
    to_sign = auth.string_to_sign(request, auth.canonical_request(request))
    return str(auth.signature(to_sign, request))


@pytest.mark.parametrize("session_token", ["", "the-session-token"], ids=["", "session token"])
@pytest.mark.parametrize(
    ("settings", "region", "server_id"),
    [
        ({}, "us-east-1", None),
        ({"region": "eu-central-1"}, "eu-central-1", None),
        ({"header_value": "vault.example.com"}, "us-east-1", "vault.example.com"),
    ],
    ids=["", "region", "header"],
)
async def test_the_request_to_sts_is_signed_as_aws_signs_with_the_keys_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
    *,
    settings: dict[str, Any],
    region: str,
    server_id: str | None,
    session_token: str,
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "the-secret-key")
    if session_token:
        monkeypatch.setenv("AWS_SESSION_TOKEN", session_token)
    async with keeping() as kept, login_adapter(Connection(kept.address)) as adapter:
        grant = await Aws(role="ci", mount="team/aws", **settings).login(adapter)
    assert grant == Grant("hvs.aws", 60.0, renewable=True, ours=True)
    ((path, document),) = kept.logins
    assert path == "/v1/auth/team/aws/login"
    assert document["role"] == "ci"
    assert b64decode(document["iam_request_url"]) == b"https://sts.amazonaws.com/"
    assert b64decode(document["iam_request_body"]) == b"Action=GetCallerIdentity&Version=2011-06-15"
    headers = json.loads(b64decode(document["iam_request_headers"]))
    assert headers.get("X-Vault-AWS-IAM-Server-ID") == ([server_id] if server_id else None)
    assert headers.get("X-Amz-Security-Token") == ([session_token] if session_token else None)
    (authorization,) = headers["Authorization"]
    assert f"/{region}/sts/aws4_request" in authorization
    assert authorization.endswith(f"Signature={signature_by_botocore(document, 'the-secret-key', region)}")
    assert "the-secret-key" not in json.dumps(document)
    assert "the-secret-key" not in str(b64decode(document["iam_request_headers"]))


async def test_keys_are_looked_for_anew_at_each_login(monkeypatch: pytest.MonkeyPatch) -> None:
    method = Aws()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret-key")
    async with keeping() as kept, login_adapter(Connection(kept.address)) as adapter:
        for name in ("AKIDONE", "AKIDTWO"):
            monkeypatch.setenv("AWS_ACCESS_KEY_ID", name)
            await method.login(adapter)
    one, two = (str(b64decode(document["iam_request_headers"])) for _, document in kept.logins)
    assert "AKIDONE" in one
    assert "AKIDTWO" in two


async def test_without_any_the_service_is_told_where_they_were_looked_for() -> None:
    async with keeping() as kept, login_adapter(Connection(kept.address)) as adapter:
        with pytest.raises(Unavailable, match="no AWS credentials"):
            await Aws().login(adapter)
    assert not kept.logins


async def test_an_error_of_botocores_is_unavailable_and_does_not_show_what_it_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")  # half of what is needed
    async with keeping() as kept, login_adapter(Connection(kept.address)) as adapter:
        with pytest.raises(Unavailable, match="AWS does not give it credentials") as caught:
            await Aws().login(adapter)
    assert caught.value.cause == "PartialCredentialsError"


def test_without_botocore_the_settings_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aws, "find_spec", lambda _: None)
    with pytest.raises(ValidationError, match=r'pip install "woodpecker-vault\[aws\]"'):
        Aws()
