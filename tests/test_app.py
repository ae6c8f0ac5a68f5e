"""The HTTP surface from outside, against the service as a process of its own."""

import asyncio
import base64
import gzip
import hashlib
import json
import ssl
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import aiohttp
import pytest
import trustme
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from multidict import CIMultiDict

from tests.servers import Admin, Client, Proxy, Reply, Service, pipeline_body, serving, settings
from woodpecker_vault.cli.openbao import OpenBao, free_port, in_memory
from woodpecker_vault.cli.stand_in import public_pem, signed_headers

large = pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")

LABEL = "woodpecker-ci-extensions"
TARGET, DIGEST = '"@request-target"', '"content-digest"'
FRESH = ';created={now};alg="ed25519"'
BODY = json.dumps(pipeline_body()).encode()
OTHER_BODY = BODY.replace(b'"id": 1,', b'"id": 2,', 1)


@dataclass(frozen=True, slots=True)
class Ask:
    """A request as it goes over the wire."""

    method: str
    path: str
    body: bytes | None
    headers: CIMultiDict[str]

    def with_header(self, name: str, value: str) -> "Ask":
        """The same with another value of one header."""
        headers = self.headers.copy()
        headers[name] = value
        return replace(self, headers=headers)

    def with_line(self, name: str, value: str) -> "Ask":
        """The same with one more line of a header."""
        headers = self.headers.copy()
        headers.add(name, value)
        return replace(self, headers=headers)

    def without(self, name: str) -> "Ask":
        """The same without a header."""
        headers = self.headers.copy()
        del headers[name]
        return replace(self, headers=headers)

    def swapped(self, name: str, old: str, new: str) -> "Ask":
        """The same with a part of a header exchanged."""
        assert old in self.headers[name]
        return self.with_header(name, self.headers[name].replace(old, new, 1))

    async def to(self, client: Client) -> Reply:
        """Send it."""
        return await client.raw(self.method, self.path, self.body, self.headers)


@dataclass(frozen=True, slots=True)
class Signing:
    """How to sign: by default as Woodpecker does. Times in ``parameters`` are filled in when it is done."""

    components: tuple[str, ...] = (TARGET, DIGEST)
    parameters: str = FRESH
    label: str = LABEL
    target: str = "/secrets"
    digest: str = ""
    values: tuple[tuple[str, str], ...] = ()

    def headers(self, key: Ed25519PrivateKey, body: bytes = BODY) -> CIMultiDict[str]:
        """The headers of a request with this body."""
        now = int(time.time())
        digest = self.digest or digest_of(body)
        values = {TARGET: self.target, DIGEST: digest, **dict(self.values)}
        parameters = self.parameters.format(now=now, old=now - 60, past=now - 1, future=now + 60, later=now + 20)
        member = f"({' '.join(self.components)}){parameters}"
        base = "".join(f"{component}: {values.get(component, '')}\n" for component in self.components)
        signature = key.sign(f'{base}"@signature-params": {member}'.encode())
        return CIMultiDict(
            {
                "Content-Digest": digest,
                "Signature-Input": f"{self.label}={member}",
                "Signature": f"{self.label}=:{base64.b64encode(signature).decode()}:",
            }
        )


def digest_of(body: bytes, algorithm: str = "sha-256") -> str:
    """A Content-Digest (RFC 9530)."""
    digest = hashlib.new(algorithm.replace("-", ""), body).digest()
    return f"{algorithm}=:{base64.b64encode(digest).decode()}:"


def flipped(ask: Ask) -> Ask:
    """One bit of the signature is another one."""
    label, _, text = ask.headers["Signature"].partition("=:")
    signature = bytearray(base64.b64decode(text.removesuffix(":")))
    signature[10] ^= 1
    return ask.with_header("Signature", f"{label}=:{base64.b64encode(signature).decode()}:")


def unique(path: str) -> str:
    """The path with a query that no other request has, so that no other one has its signature."""
    return f"{path}?{uuid.uuid4().hex}"


def once(client: Client, method: str, path: str, document: object = None) -> Callable[[], Awaitable[Reply]]:
    """Sign a request; each call then sends it, with the same signature."""
    body = None if document is None else json.dumps(document).encode()
    headers = signed_headers(client.key, client.url + path, body, client._created(method, path, body, 0))
    return lambda: client.raw(method, path, body, headers)


async def over_a_socket(url: str, head: str, body: bytes = b"") -> Reply:
    """Send these very bytes, and read one answer."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        writer.write(head.replace("\n", "\r\n").encode() + body)
        await writer.drain()
        async with asyncio.timeout(30):
            lines = ["HTTP/1.1 100"]
            while lines[0].split()[1] == "100":
                lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            fields = (line.partition(": ") for line in lines[1:-2])
            headers = CIMultiDict((name, value) for name, _, value in fields)
            text = await reader.readexactly(int(headers["Content-Length"]))
        return Reply(int(lines[0].split()[1]), headers, text)
    finally:
        writer.close()


def configured(key: Ed25519PrivateKey, bao: OpenBao, **sections: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Settings for a service of one's own; ``server`` may be among the sections."""
    server = sections.pop("server", {})
    document = settings(key, bao, **sections)
    document["server"].update(server)
    return document


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(10):
        while not await condition():  # noqa: ASYNC110 - nothing tells when it is
            await asyncio.sleep(0.005)


def assert_problem(reply: Reply, status: int, detail: str = "") -> None:
    """The answer is this error, in the form of RFC 9457."""
    assert reply.status == status, (reply.status, reply.body)
    assert reply.headers["Content-Type"] == "application/problem+json"
    assert reply.json.keys() == {"type", "title", "status", "detail", "request_id"}
    assert reply.json["type"] == "about:blank"
    assert reply.json["title"]
    assert reply.json["status"] == status
    assert reply.json["request_id"] == reply.headers["X-Request-Id"]
    assert detail in reply.json["detail"], reply.json["detail"]
    assert reply.json["detail"][-1] == "."


@pytest.fixture(scope="module")
async def watched_vault(bao: OpenBao) -> AsyncIterator[Proxy]:
    """A way to Vault that counts who goes it."""
    async with Proxy(bao.address).listening() as proxy:
        yield proxy


@pytest.fixture
def untouched_vault(watched_vault: Proxy) -> Proxy:
    """The way to Vault of a service that must never ask it anything: nobody has gone it yet."""
    watched_vault.drop()
    watched_vault.connections = 0
    return watched_vault


@pytest.fixture(scope="module")
async def forger(
    tmp_path_factory: pytest.TempPathFactory,
    bao: OpenBao,
    key: Ed25519PrivateKey,
    session: aiohttp.ClientSession,
    watched_vault: Proxy,
) -> AsyncIterator[Client]:
    """Asks a service whose way to Vault is watched."""
    document = settings(key, bao, vault={"address": watched_vault.address})
    async with serving(tmp_path_factory.mktemp("untouched"), document) as service:
        await service.logged_in()
        yield Client(session, service.url, key)


@dataclass(frozen=True, slots=True)
class Frail:
    """A service that has little patience with a Vault that can be broken."""

    client: Client
    service: Service
    vault: Proxy


@dataclass(frozen=True, slots=True)
class Own:
    """A service of one test's own, and a Woodpecker that asks it."""

    service: Service
    client: Client


Serve = Callable[..., AbstractAsyncContextManager[Own]]


@pytest.fixture
def serve(folder: Path, bao: OpenBao, key: Ed25519PrivateKey, session: aiohttp.ClientSession) -> Serve:
    """Starts a service with these sections of settings."""

    @asynccontextmanager
    async def start(**sections: Mapping[str, Any]) -> AsyncIterator[Own]:
        async with serving(folder, configured(key, bao, **sections)) as service:
            yield Own(service, Client(session, service.url, key))

    return start


@pytest.fixture(scope="module")
async def frail_service(
    tmp_path_factory: pytest.TempPathFactory, bao: OpenBao, key: Ed25519PrivateKey, session: aiohttp.ClientSession
) -> AsyncIterator[Frail]:
    async with Proxy(bao.address).listening() as proxy:
        document = configured(key, bao, server={"request_timeout": 0.5}, vault={"address": proxy.address})
        async with serving(tmp_path_factory.mktemp("frail"), document) as service:
            yield Frail(Client(session, service.url, key), service, proxy)
            proxy.mode = "pass"


@pytest.fixture
def frail(frail_service: Frail) -> Frail:
    """The frail service, with a Vault that works."""
    frail_service.vault.mode = "pass"
    return frail_service


@pytest.fixture(scope="module")
async def misconfigured(
    tmp_path_factory: pytest.TempPathFactory,
    bao: OpenBao,
    admin: Admin,
    key: Ed25519PrivateKey,
    session: aiohttp.ClientSession,
) -> AsyncIterator[Mapping[str, Client]]:
    """Services whose settings make sense, but are wrong."""
    readonly = (
        'path "secret/data/woodpecker/*" {capabilities=["read"]} path "secret/metadata/*" {capabilities=["list"]}'
    )
    wrong: dict[str, dict[str, Mapping[str, Any]]] = {
        "no Vault there": {"vault": {"address": f"http://127.0.0.1:{free_port()}"}},
        "a wrong token": {"vault_auth": {"token": "s.nosuchtoken"}},
        "a wrong mount": {"secrets": {"mount": "nowhere"}},
        "no policy": {"vault_auth": {"token": await admin.token('path "x" {capabilities=["read"]}', name="app-none")}},
        "a policy to read": {"vault_auth": {"token": await admin.token(readonly, name="app-readonly")}},
    }
    folder = tmp_path_factory.mktemp("misconfigured")
    async with AsyncExitStack() as stack:
        starting = (serving(folder, settings(key, bao, **sections)) for sections in wrong.values())
        services = await asyncio.gather(*map(stack.enter_async_context, starting))
        yield {name: Client(session, service.url, key) for name, service in zip(wrong, services, strict=True)}


SIGNED_OTHERWISE = {
    "another algorithm": (Signing(parameters=';created={now};alg="rsa-pss-sha512"'), "alg must be"),
    "an algorithm in capitals": (Signing(parameters=';created={now};alg="Ed25519"'), "alg must be"),
    "alg as a token": (Signing(parameters=";created={now};alg=ed25519"), "alg must be"),
    "no alg": (Signing(parameters=";created={now}"), "alg must be"),
    "no created": (Signing(parameters=';alg="ed25519"'), "no created time"),
    "no parameters": (Signing(parameters=""), "alg must be"),
    "created too long ago": (Signing(parameters=';created={old};alg="ed25519"'), "s old (at most 15 s)"),
    "created at the epoch": (Signing(parameters=';created=0;alg="ed25519"'), "s old (at most 15 s)"),
    "created before the epoch": (Signing(parameters=';created=-1;alg="ed25519"'), "s old (at most 15 s)"),
    "created in the future": (Signing(parameters=';created={future};alg="ed25519"'), "in the future (at most 5 s)"),
    "created a fraction": (Signing(parameters=';created={now}.5;alg="ed25519"'), "not a whole number"),
    "created a text": (Signing(parameters=';created="{now}";alg="ed25519"'), "not a whole number"),
    "created a flag": (Signing(parameters=';created;alg="ed25519"'), "not a whole number"),
    "expired": (Signing(parameters=';created={now};expires={past};alg="ed25519"'), "has expired"),
    "expires a fraction": (Signing(parameters=';created={now};expires={later}.5;alg="ed25519"'), "not a whole number"),
    "nothing covered": (Signing(components=()), "does not cover @request-target"),
    "the target uncovered": (Signing(components=(DIGEST,)), "does not cover @request-target"),
    "only the method covered": (Signing(components=('"@method"',)), "does not cover @request-target"),
    "the digest uncovered": (Signing(components=(TARGET,)), "does not cover content-digest"),
    "the target twice": (Signing(components=(TARGET, TARGET, DIGEST)), "covers a component twice"),
    "the digest twice": (Signing(components=(TARGET, DIGEST, DIGEST)), "covers a component twice"),
    "the target of another request": (Signing(components=(f"{TARGET};req", DIGEST)), "in a form that cannot"),
    "the digest with sf": (Signing(components=(TARGET, f"{DIGEST};sf")), "in a form that cannot"),
    "the digest with bs": (Signing(components=(TARGET, f"{DIGEST};bs")), "in a form that cannot"),
    "the digest with a key": (Signing(components=(TARGET, f'{DIGEST};key="sha-256"')), "in a form that cannot"),
    "a component as a token": (Signing(components=(TARGET, DIGEST, "date")), "in a form that cannot"),
    "an unknown derived component": (Signing(components=(TARGET, DIGEST, '"@wish"')), "does not have"),
    "a derived component of answers": (Signing(components=(TARGET, DIGEST, '"@status"')), "does not have"),
    "the parameters as a component": (Signing(components=(TARGET, DIGEST, '"@signature-params"')), "does not have"),
    "a header that is not there": (Signing(components=(TARGET, DIGEST, '"x-wish"')), "does not have"),
    "a component in capitals": (Signing(components=(TARGET, '"Content-Digest"')), "does not have"),
    "another label": (Signing(label="sig1"), "labelled woodpecker-ci-extensions"),
    "another path": (Signing(target="/registries"), "No known key"),
    "an empty path": (Signing(target="/"), "No known key"),
    "another method": (
        Signing(components=('"@method"', TARGET, DIGEST), values=(('"@method"', "GET"),)),
        "No known key",
    ),
    "the digest of another body": (Signing(digest=digest_of(OTHER_BODY)), "not the digest of the body"),
    "the digest of nothing": (Signing(digest=digest_of(b"")), "not the digest of the body"),
    "a digest nobody can check": (Signing(digest="md5=:AAAAAAAAAAAAAAAAAAAAAA==:"), "names no algorithm"),
    "a right and a wrong digest": (
        Signing(digest=f"{digest_of(BODY)}, {digest_of(OTHER_BODY, 'sha-512')}"),
        "not the digest of the body",
    ),
    "the digest as a text": (Signing(digest=digest_of(BODY).replace(":", '"')), "not the digest of the body"),
    "half a digest": (Signing(digest="sha-256=:AAAA:"), "not the digest of the body"),
    "a digest that is no dictionary": (Signing(digest="sha-256=:!:"), "Content-Digest is not a structured field"),
}
"""Signed by the right key, but not as Woodpecker signs: what is odd, and what the answer says of it."""

BENT: Mapping[str, tuple[Callable[[Ask], Ask], str]] = {
    "no Signature": (lambda ask: ask.without("Signature"), "has no Signature."),
    "no Signature-Input": (lambda ask: ask.without("Signature-Input"), "has no Signature-Input"),
    "no Content-Digest": (lambda ask: ask.without("Content-Digest"), "does not have"),
    "no header at all": (lambda ask: replace(ask, headers=CIMultiDict[str]()), "is not signed"),
    "another body": (lambda ask: replace(ask, body=OTHER_BODY), "not the digest of the body"),
    "a longer body": (lambda ask: replace(ask, body=BODY + b" "), "not the digest of the body"),
    "an empty body": (lambda ask: replace(ask, body=b""), "not the digest of the body"),
    "no body": (lambda ask: replace(ask, body=None), "not the digest of the body"),
    "another body with its digest": (
        lambda ask: replace(ask, body=OTHER_BODY).with_header("Content-Digest", digest_of(OTHER_BODY)),
        "No known key",
    ),
    "another digest": (lambda ask: ask.with_header("Content-Digest", digest_of(OTHER_BODY)), "No known key"),
    "the digest twice": (lambda ask: ask.with_line("Content-Digest", digest_of(BODY)), "No known key"),
    "a second digest": (lambda ask: ask.with_line("Content-Digest", digest_of(OTHER_BODY, "sha-512")), "No known key"),
    "the digest by another algorithm": (
        lambda ask: ask.with_header("Content-Digest", digest_of(BODY, "sha-512")),
        "No known key",
    ),
    "a query less": (lambda ask: replace(ask, path="/secrets"), "No known key"),
    "an empty query": (lambda ask: replace(ask, path="/secrets?"), "No known key"),
    "more query": (lambda ask: replace(ask, path=ask.path + "&y=2"), "No known key"),
    "another query": (lambda ask: replace(ask, path="/secrets?x=2"), "No known key"),
    "a query written otherwise": (lambda ask: replace(ask, path="/secrets?%78=1"), "No known key"),
    "another path": (lambda ask: replace(ask, path="/repo/1/secrets?x=1"), "No known key"),
    "a path with one more slash": (lambda ask: replace(ask, path="/secrets/?x=1"), "No known key"),
    "a path with two slashes": (lambda ask: replace(ask, path="//secrets?x=1"), "No known key"),
    "a path in capitals": (lambda ask: replace(ask, path="/SECRETS?x=1"), "No known key"),
    "a path with a prefix": (lambda ask: replace(ask, path="/base/secrets?x=1"), "No known key"),
    "a path with dots": (lambda ask: replace(ask, path="/x/../secrets?x=1"), "No known key"),
    "a path with a line break": (lambda ask: replace(ask, path="/secrets%0A?x=1"), "No known key"),
    "a bit flipped": (flipped, "No known key"),
    "a truncated signature": (
        lambda ask: ask.with_header("Signature", ask.headers["Signature"][:-9] + ":"),
        "No known key",
    ),
    "an empty signature": (lambda ask: ask.with_header("Signature", f"{LABEL}=::"), "No known key"),
    "a signature of zeroes": (
        lambda ask: ask.with_header("Signature", f"{LABEL}=:{base64.b64encode(bytes(64)).decode()}:"),
        "No known key",
    ),
    "a longer signature": (
        lambda ask: ask.with_header("Signature", f"{LABEL}=:{base64.b64encode(bytes(128)).decode()}:"),
        "No known key",
    ),
    "a signature that is no base64": (
        lambda ask: ask.with_header("Signature", f"{LABEL}=:!!!!:"),
        "Signature is not a structured field",
    ),
    "a signature that does not end": (
        lambda ask: ask.with_header("Signature", ask.headers["Signature"][:-1]),
        "Signature is not a structured field",
    ),
    "a signature in umlauts": (
        lambda ask: ask.with_header("Signature", f"{LABEL}=:ää:"),
        "Signature is not a structured field",
    ),
    "a signature as a text": (
        lambda ask: ask.with_header("Signature", f'{LABEL}="AAAA"'),
        "Signature has no bytes labelled",
    ),
    "a signature as a list": (
        lambda ask: ask.with_header("Signature", f"{LABEL}=(:AAAA:)"),
        "Signature has no bytes labelled",
    ),
    "a signature under another label": (
        lambda ask: ask.swapped("Signature", LABEL, "sig1"),
        "Signature has no bytes labelled",
    ),
    "a second signature under the label": (
        lambda ask: ask.with_line("Signature", f"{LABEL}=:{base64.b64encode(bytes(64)).decode()}:"),
        "No known key",
    ),
    "a list under another label": (
        lambda ask: ask.swapped("Signature-Input", LABEL, "sig1"),
        "Signature-Input has no list",
    ),
    "no list": (lambda ask: ask.with_header("Signature-Input", f'{LABEL}="x"'), "Signature-Input has no list"),
    "a list that does not end": (
        lambda ask: ask.swapped("Signature-Input", ")", ""),
        "Signature-Input is not a structured field",
    ),
    "an empty Signature-Input": (
        lambda ask: ask.with_header("Signature-Input", ""),
        "Signature-Input is not a structured field",
    ),
    "a second list under the label": (
        lambda ask: ask.with_line("Signature-Input", f'{LABEL}=();created={int(time.time())};alg="ed25519"'),
        "not in the strict form",
    ),
    "another list under the label before it": (
        lambda ask: ask.with_header("Signature-Input", f"{LABEL}=();created=1, {ask.headers['Signature-Input']}"),
        "not in the strict form",
    ),
    "two spaces between the components": (
        lambda ask: ask.swapped("Signature-Input", '" "', '"  "'),
        "not in the strict form",
    ),
    "spaces inside the parentheses": (
        lambda ask: ask.swapped("Signature-Input", "(", "( "),
        "not in the strict form",
    ),
    "a space before a parameter": (
        lambda ask: ask.swapped("Signature-Input", ";alg", "; alg"),
        "not in the strict form",
    ),
    "a parameter twice": (
        lambda ask: ask.with_header("Signature-Input", ask.headers["Signature-Input"] + ';alg="ed25519"'),
        "not in the strict form",
    ),
    "a component less": (
        lambda ask: ask.swapped("Signature-Input", f" {DIGEST}", ""),
        "No known key",
    ),
    "a component more": (
        lambda ask: ask.swapped("Signature-Input", DIGEST, f'{DIGEST} "@method"'),
        "No known key",
    ),
    "components in another order": (
        lambda ask: ask.swapped("Signature-Input", f"{TARGET} {DIGEST}", f"{DIGEST} {TARGET}"),
        "No known key",
    ),
    "another created": (
        lambda ask: ask.with_header(
            "Signature-Input", f'{LABEL}=({TARGET} {DIGEST});created={int(time.time()) - 7};alg="ed25519"'
        ),
        "No known key",
    ),
    "a parameter more": (
        lambda ask: ask.with_header("Signature-Input", ask.headers["Signature-Input"] + ';keyid="1"'),
        "No known key",
    ),
}
"""Signed as Woodpecker signs, and changed on the way: how, and what the answer says of it."""

BENT_WITHOUT_BODY: Mapping[str, tuple[Callable[[Ask], Ask], str]] = {
    "a body": (lambda ask: replace(ask, body=b"{}"), "has a body, but"),
    "a body with its digest": (
        lambda ask: replace(ask, body=b"{}").with_header("Content-Digest", digest_of(b"{}")),
        "has a body, but",
    ),
    "another repository": (lambda ask: replace(ask, path="/repo/2/secrets/token"), "No known key"),
    "another name": (lambda ask: replace(ask, path="/repo/1/secrets/tokens"), "No known key"),
    "no name": (lambda ask: replace(ask, path="/repo/1/secrets"), "No known key"),
    "a longer path": (lambda ask: replace(ask, path="/repo/1/secrets/token/more"), "No known key"),
    "a query": (lambda ask: replace(ask, path="/repo/1/secrets/token?page=1"), "No known key"),
    "an escaped question mark": (lambda ask: replace(ask, path="/repo/1/secrets/token%3F"), "No known key"),
    "an escape twice": (lambda ask: replace(ask, path="/repo/1/secrets/%2574oken"), "No known key"),
    "a stray percent sign": (lambda ask: replace(ask, path="/repo/1/secrets/token%"), "No known key"),
    "no Signature": (lambda ask: ask.without("Signature"), "has no Signature."),
}

UNSIGNED = {
    "a route": ("POST", "/secrets", b"{}"),
    "an unknown route": ("GET", "/nowhere", None),
    "the root": ("GET", "/", None),
    "a wrong method": ("PATCH", "/secrets", b"{}"),
    "an uncommon method": ("PROPFIND", "/secrets", None),
    "HEAD": ("HEAD", "/secrets", None),
    "OPTIONS": ("OPTIONS", "/secrets", None),
    "TRACE": ("TRACE", "/secrets", None),
    "a bad repository": ("GET", "/repo/x/secrets", None),
    "a bad name": ("DELETE", "/repo/1/secrets/..", None),
    "a bad page": ("GET", "/repo/1/secrets?page=x", None),
    "no JSON": ("POST", "/secrets", b"{"),
    "a body that is too large": ("POST", "/secrets", b" " * (16 * 1024 * 1024 + 1)),
    "an open route with a slash": ("GET", "/healthz/", None),
    "an open route with two slashes": ("GET", "//healthz", None),
    "an open route in capitals": ("GET", "/HEALTHZ", None),
    "an open route escaped": ("GET", "/%68ealthz", None),
    "an open route and then dots": ("POST", "/healthz/../secrets", b"{}"),
    "an open route and then escaped dots": ("POST", "/healthz/%2e%2e/secrets", b"{}"),
    "an open route and a parameter": ("POST", "/healthz;/../secrets", b"{}"),
    "an open route in the query": ("POST", "/secrets?/healthz", b"{}"),
}


class TestARequestIsRefused:
    """With 401 and before anything else is looked at, Vault above all."""

    @pytest.mark.parametrize("how", SIGNED_OTHERWISE)
    async def test_if_it_is_signed_with(self, how: str, forger: Client, untouched_vault: Proxy) -> None:
        signing, detail = SIGNED_OTHERWISE[how]
        reply = await forger.raw("POST", "/secrets", BODY, signing.headers(forger.key))
        assert_problem(reply, 401, detail)
        assert reply.headers["WWW-Authenticate"] == "Signature"
        assert untouched_vault.connections == 0

    @pytest.mark.parametrize("how", BENT)
    async def test_if_it_was_signed_and_arrives_with(self, how: str, forger: Client, untouched_vault: Proxy) -> None:
        bend, detail = BENT[how]
        genuine = Ask("POST", "/secrets?x=1", BODY, Signing(target="/secrets?x=1").headers(forger.key))
        assert_problem(await bend(genuine).to(forger), 401, detail)
        assert untouched_vault.connections == 0

    @pytest.mark.parametrize("method", ["GET", "DELETE"])
    @pytest.mark.parametrize("how", BENT_WITHOUT_BODY)
    async def test_if_it_was_signed_without_a_body_and_arrives_with(
        self, how: str, method: str, forger: Client, untouched_vault: Proxy
    ) -> None:
        bend, detail = BENT_WITHOUT_BODY[how]
        path = "/repo/1/secrets/token"
        headers = CIMultiDict(signed_headers(forger.key, forger.url + path, None, int(time.time())))
        assert_problem(await bend(Ask(method, path, None, headers)).to(forger), 401, detail)
        assert untouched_vault.connections == 0

    async def test_if_a_stranger_signed_it(self, forger: Client, untouched_vault: Proxy) -> None:
        stranger = Ed25519PrivateKey.generate()
        reply = await forger.raw("POST", "/secrets", BODY, Signing().headers(stranger))
        assert_problem(reply, 401, "No known key verifies this signature")
        assert untouched_vault.connections == 0

    @large
    @pytest.mark.parametrize("what", UNSIGNED)
    async def test_if_it_is_not_signed_and_asks_for(self, what: str, forger: Client, untouched_vault: Proxy) -> None:
        method, path, body = UNSIGNED[what]
        reply = await forger.raw(method, path, body, {})
        if method == "HEAD":
            assert reply.status == 401
        else:
            assert_problem(reply, 401, "is not signed")
        assert untouched_vault.connections == 0

    @pytest.mark.parametrize(
        "head",
        [
            "POST /secrets HTTP/1.1\nHost: x\nContent-Length: 99999999999\n\n",
            "POST /secrets HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\n\n",
            "POST /secrets HTTP/1.1\nHost: x\nContent-Length: 5\nExpect: 100-continue\n\n",
            "POST http://x/secrets HTTP/1.1\nHost: x\nContent-Length: 0\n\n",
            "POST http://x/healthz/../secrets HTTP/1.1\nHost: x\nContent-Length: 0\n\n",
            "OPTIONS * HTTP/1.1\nHost: x\n\n",
            "POST /secrets HTTP/1.0\nContent-Length: 0\n\n",
        ],
        ids=["a promised gigabyte", "chunks", "an expectation", "a whole URL", "a URL with dots", "a star", "HTTP 1.0"],
    )
    async def test_without_waiting_for_its_body_if_its_head_is(
        self, head: str, forger: Client, untouched_vault: Proxy
    ) -> None:
        reply = await over_a_socket(forger.url, head)
        assert_problem(reply, 401)
        assert untouched_vault.connections == 0

    async def test_even_if_it_expects_what_nobody_knows(self, forger: Client) -> None:
        reply = await forger.raw("POST", "/secrets", b"{}", {"Expect": "a wonder"})
        assert_problem(reply, 401, "is not signed")

    async def test_and_vault_hears_only_of_the_valid_one(self, serve: Serve, bao: OpenBao) -> None:
        async with Proxy(bao.address).listening() as proxy, serve(vault={"address": proxy.address}) as own:
            await own.service.logged_in()
            proxy.drop()
            proxy.connections = 0
            signed = Signing().headers(own.client.key)
            for headers, body in ((CIMultiDict[str](), BODY), (signed, OTHER_BODY)):
                assert (await own.client.raw("POST", "/secrets", body, headers)).status == 401
            assert (await own.client.raw("GET", "/healthz", None, {})).status == 200
            assert proxy.connections == 0
            assert (await own.client.raw("POST", "/secrets", BODY, signed)).status == 200
            assert proxy.connections > 0


class TestARequestIsAccepted:
    """So that the refusals mean something: what is odd, and yet right."""

    @pytest.mark.parametrize(
        "signing",
        [
            Signing(),
            Signing(components=(DIGEST, TARGET)),
            Signing(parameters=';alg="ed25519";created={now}'),
            Signing(parameters=';created={now};expires={later};alg="ed25519"'),
            Signing(parameters=';created={now};alg="ed25519";keyid="1";nonce="x";tag="y"'),
            Signing(components=('"@method"', TARGET, DIGEST), values=(('"@method"', "POST"),)),
            Signing(components=(TARGET, DIGEST, '"x-more"'), values=(('"x-more"', "one, two"),)),
            Signing(digest=digest_of(BODY, "sha-512")),
            Signing(digest=f"{digest_of(BODY)}, {digest_of(BODY, 'sha-512')}"),
            Signing(digest=f"md5=:AAAA:, {digest_of(BODY)}"),
        ],
        ids=[
            "as Woodpecker signs",
            "components in another order",
            "parameters in another order",
            "not expired yet",
            "more parameters",
            "the method covered",
            "a header of two lines covered",
            "a longer digest",
            "two digests",
            "a digest nobody knows beside one",
        ],
    )
    async def test_if_it_is_signed_with(self, signing: Signing, client: Client) -> None:
        headers = signing.headers(client.key)
        headers.add("X-More", "one")
        headers.add("X-More", " two ")
        reply = await client.raw("POST", "/secrets", BODY, headers)
        assert reply.status == 200, reply.body

    async def test_if_a_proxy_signed_it_as_well(self, client: Client) -> None:
        ask = Ask("POST", "/secrets", BODY, Signing().headers(client.key))
        input_ = ask.headers["Signature-Input"]
        ask = ask.with_header("Signature-Input", f'proxy=("@method");created=1, {input_}')
        ask = ask.with_header("Signature", f"proxy=:AAAA:, {ask.headers['Signature']}")
        assert (await ask.to(client)).status == 200

    async def test_if_its_path_is_signed_as_it_is_sent(self, client: Client, admin: Admin, repo_id: int) -> None:
        await admin.put(f"woodpecker/repo/{repo_id}/a b", "value")
        path = f"/repo/{repo_id}/secrets/a%20b"
        for target in (path, f"/repo/{repo_id}/secrets/a b"):
            headers = Signing(components=(TARGET,), target=target).headers(client.key)
            del headers["Content-Digest"]
            reply = await client.raw("GET", path, None, headers)
            assert (reply.status, reply.json["name"]) == (200, "a b")

    async def test_without_a_body_but_with_the_digest_of_nothing(
        self, client: Client, admin: Admin, repo_id: int
    ) -> None:
        await admin.put(f"woodpecker/repo/{repo_id}/token", "value")
        path = f"/repo/{repo_id}/secrets/token"
        reply = await client.raw("GET", path, None, Signing(target=path).headers(client.key, b""))
        assert reply.status == 200

    async def test_with_a_question_mark_at_the_end_that_woodpeckers_library_does_not_sign(
        self, client: Client, repo_id: int
    ) -> None:
        path = f"/repo/{repo_id}/secrets"
        headers = signed_headers(client.key, client.url + path, None, int(time.time()))
        assert (await client.raw("GET", f"{path}?", None, headers)).status == 200

    @pytest.mark.parametrize("age", [0, 10, -3])
    async def test_while_it_is_fresh(self, age: float, client: Client) -> None:
        assert (await client.send("POST", "/secrets", pipeline_body(), age=age)).status == 200

    async def test_under_each_of_two_keys(self, serve: Serve, folder: Path, key: Ed25519PrivateKey) -> None:
        new = Ed25519PrivateKey.generate()
        (folder / "new.pem").write_text(public_pem(new))
        async with serve(woodpecker={"public_key_files": [str(folder / "new.pem")]}) as own:
            for known in (key, new, key):
                reply = await replace(own.client, key=known).send("POST", "/secrets", pipeline_body())
                assert reply.status == 200
            stranger = replace(own.client, key=Ed25519PrivateKey.generate())
            assert_problem(await stranger.send("POST", "/secrets", pipeline_body()), 401)

    async def test_over_tls(self, serve: Serve, folder: Path) -> None:
        authority = trustme.CA()
        certificate = authority.issue_cert("127.0.0.1")
        certificate.cert_chain_pems[0].write_to_path(folder / "cert.pem")
        certificate.private_key_pem.write_to_path(folder / "key.pem")
        tls = {"tls_cert": str(folder / "cert.pem"), "tls_key": str(folder / "key.pem")}
        context = ssl.create_default_context()
        authority.configure_trust(context)
        async with (
            serve(server=tls) as own,
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session,
        ):
            assert own.service.url.startswith("https://")
            client = replace(own.client, session=session)
            assert (await client.send("POST", "/secrets", pipeline_body())).status == 200
            assert (await client.raw("POST", "/secrets", BODY, {})).status == 401


class TestRoutes:
    @pytest.mark.parametrize(
        "path",
        [
            "/",
            "/nowhere",
            "/secrets/",
            "//secrets",
            "/secrets/token",
            "/repo",
            "/repo/1",
            "/repo/1/secret",
            "/repo/1/secrets/a/b",
            "/repo/1/2/secrets",
            "/repo/1/secrets/token/",
            "/healthz/",
            "/x/healthz",
        ],
    )
    async def test_one_that_is_not_there_is_404(self, path: str, client: Client) -> None:
        assert_problem(await client.send("GET", unique(path)), 404, "no such route")

    @pytest.mark.parametrize(
        ("method", "path", "allowed"),
        [
            ("GET", "/secrets", "POST"),
            ("PUT", "/secrets", "POST"),
            ("OPTIONS", "/secrets", "POST"),
            ("PROPFIND", "/secrets", "POST"),
            ("DELETE", "/repo/1/secrets", "GET, POST"),
            ("PATCH", "/repo/1/secrets/token", "DELETE, GET, PUT"),
            ("POST", "/repo/1/secrets/token", "DELETE, GET, PUT"),
        ],
    )
    async def test_a_wrong_method_is_405(self, method: str, path: str, allowed: str, client: Client) -> None:
        reply = await client.send(method, unique(path))
        assert_problem(reply, 405, method)
        assert reply.headers["Allow"] == allowed

    @pytest.mark.parametrize("path", ["/secrets", "/repo/1/secrets", "/repo/1/secrets/token"])
    async def test_head_is_405(self, path: str, client: Client) -> None:
        reply = await client.send("HEAD", unique(path))
        assert reply.status == 405
        assert "HEAD" not in reply.headers["Allow"]

    @pytest.mark.parametrize("path", ["/healthz", "/readyz"])
    async def test_the_open_ones_take_nothing_but_get(self, path: str, client: Client) -> None:
        reply = await client.raw("POST", path, b"{}", {})
        assert_problem(reply, 405)
        assert reply.headers["Allow"] == "GET"

    async def test_no_answer_with_a_value_may_be_stored_on_the_way(
        self, client: Client, admin: Admin, repo_id: int
    ) -> None:
        await admin.put(f"woodpecker/repo/{repo_id}/token", "value")
        document = pipeline_body({"id": repo_id})
        replies = [
            await client.send("POST", "/secrets", document),
            await client.send("GET", f"/repo/{repo_id}/secrets"),
            await client.send("GET", f"/repo/{repo_id}/secrets/token"),
            await client.send("PUT", f"/repo/{repo_id}/secrets/token", {}),
        ]
        assert [reply.status for reply in replies] == [200] * 4
        assert {reply.headers["Cache-Control"] for reply in replies} == {"no-store"}
        assert {reply.headers["Content-Type"] for reply in replies} == {"application/json"}


class TestHealth:
    async def test_the_process_is_healthy_without_a_signature(self, client: Client) -> None:
        reply = await client.raw("GET", "/healthz", None, {})
        assert (reply.status, reply.json) == (200, {"status": "ok"})

    async def test_the_service_is_ready_without_a_signature(self, client: Client) -> None:
        reply = await client.raw("GET", "/readyz?verbose=1", None, {})
        assert (reply.status, reply.json["status"]) == (200, "ready")
        assert all(check == {"ok": True} for check in reply.json["checks"].values())

    @pytest.mark.parametrize(
        ("wrong", "failing", "fine"),
        [
            ("no Vault there", "address", []),
            ("a wrong token", "login", ["address", "seal"]),
            ("a wrong mount", "mount", ["address", "seal", "login"]),
            ("no policy", "mount", ["address", "seal", "login"]),
        ],
    )
    async def test_the_service_says_what_is_not_ready(
        self, wrong: str, failing: str, fine: list[str], misconfigured: Mapping[str, Client]
    ) -> None:
        reply = await misconfigured[wrong].raw("GET", "/readyz", None, {})
        checks = reply.json["checks"]
        assert (reply.status, reply.json["status"]) == (503, "not ready")
        assert [name for name, check in checks.items() if check["ok"]] == ["key", *fine]
        assert checks[failing]["detail"][-1] == "."
        assert "not checked" not in checks[failing]["detail"]

    @pytest.mark.parametrize("wrong", ["no Vault there", "a wrong token", "a wrong mount"])
    async def test_the_process_is_healthy_whatever_vault_does(
        self, wrong: str, misconfigured: Mapping[str, Client]
    ) -> None:
        assert (await misconfigured[wrong].raw("GET", "/healthz", None, {})).status == 200

    async def test_a_sealed_vault_is_not_ready_and_503(
        self, folder: Path, key: Ed25519PrivateKey, session: aiohttp.ClientSession
    ) -> None:
        async with in_memory(folder) as bao, serving(folder, settings(key, bao)) as service:
            client = Client(session, service.url, key)
            assert await client.secrets() == {}
            await Admin(bao, session).call("PUT", "sys/seal")
            reply = await client.send("POST", "/secrets", pipeline_body())
            assert_problem(reply, 503, "sealed")
            assert reply.headers["Retry-After"].isdigit()
            ready = await client.raw("GET", "/readyz", None, {})
            assert (ready.status, ready.json["checks"]["seal"]["ok"]) == (503, False)
            assert ready.json["checks"]["address"] == {"ok": True}


def _bodies(document: Mapping[str, Any], **changes: Any) -> bytes:
    return json.dumps({**document, **changes}).encode()


def _released(part: str, **changes: Any) -> bytes:
    body = pipeline_body()
    return json.dumps({**body, part: {**body[part], **changes}}).encode()


class TestA400IsGiven:
    """For what cannot be understood; Woodpecker does not ask again."""

    @pytest.mark.parametrize(
        ("body", "where"),
        [
            (b"", ""),
            (b"{", ""),
            (b"null", ""),
            (b"[]", ""),
            (b'"text"', ""),
            (b"5", ""),
            (b"\xff\xfe", ""),
            (b"\xef\xbb\xbf{}", ""),
            (b"{}", "repo"),
            (BODY + b"{}", ""),
            (BODY.replace(b'"acme"', b'"\xff"'), ""),
            (BODY.replace(b'"acme"', b'"\\ud800"'), ""),
            (b"[" * 100_000, ""),
            (b'{"repo":' * 100_000, ""),
            (b'{"repo": {"id": 1}}', "pipeline"),
            (b'{"repo": null, "pipeline": {"event": "push"}}', "repo"),
            (b'{"repo": [], "pipeline": {"event": "push"}}', "repo"),
            (_released("repo", id="1"), "repo.id"),
            (_released("repo", id=0), "repo.id"),
            (_released("repo", id=-1), "repo.id"),
            (_released("repo", id=1.0), "repo.id"),
            (_released("repo", id=True), "repo.id"),
            (_released("repo", id=None), "repo.id"),
            (_released("repo", id=2**63), "repo.id"),
            (_released("repo", id=10**4000), "repo.id"),
            (_released("repo", org_id="7"), "repo.org_id"),
            (_released("repo", owner=5), "repo.owner"),
            (_released("repo", full_name=["x"]), "repo.full_name"),
            (_released("pipeline", event=None), "pipeline.event"),
            (_released("pipeline", event=["push"]), "pipeline.event"),
            (_released("pipeline", branch=1), "pipeline.branch"),
            (_released("pipeline", from_fork="false"), "pipeline.from_fork"),
            (_released("pipeline", from_fork=0), "pipeline.from_fork"),
            (_released("pipeline", number="12"), "pipeline.number"),
        ],
        ids=lambda value: repr(value[:40]) if isinstance(value, bytes) else value,
    )
    async def test_to_the_released_form_with(self, body: bytes, where: str, client: Client) -> None:
        assert_problem(await client.send("POST", "/secrets", body=body), 400, where)

    @pytest.mark.parametrize(
        "changes",
        [
            {"name": 5},
            {"name": ["x"]},
            {"value": 5},
            {"value": True},
            {"value": {"a": 1}},
            {"images": "alpine"},
            {"images": [1]},
            {"images": [None]},
            {"images": {"alpine": 1}},
            {"events": "push"},
            {"events": [1]},
            {"events": ["push", None]},
            {"events": {}},
            {"note": 5},
            {"repo_id": "1"},
            {"repo_id": None},
            {"org_id": 0.5},
        ],
        ids=str,
    )
    async def test_to_a_write_with(
        self, changes: Mapping[str, Any], client: Client, admin: Admin, repo_id: int
    ) -> None:
        await admin.put(f"woodpecker/repo/{repo_id}/old", "value")
        field = next(iter(changes))
        document = {"name": "token", "value": "value", "events": ["push"], **changes}
        assert_problem(await client.send("POST", f"/repo/{repo_id}/secrets", document), 400, field)
        assert_problem(await client.send("PUT", f"/repo/{repo_id}/secrets/old", document), 400, field)
        assert await admin.list(f"woodpecker/repo/{repo_id}") == ["old"]
        assert await admin.version(f"woodpecker/repo/{repo_id}/old") == 1

    @pytest.mark.parametrize("body", [b"", b"{", b"null", b"[]", b'{"name": "\xff"}'], ids=repr)
    @pytest.mark.parametrize(("method", "path"), [("POST", "/repo/1/secrets"), ("PUT", "/repo/1/secrets/token")])
    async def test_to_a_write_that_is_no_json_object(self, method: str, path: str, body: bytes, client: Client) -> None:
        assert_problem(await client.send(method, unique(path), body=body), 400, "The body is not as expected")

    @pytest.mark.parametrize(
        "repo_id",
        ["abc", "0", "-1", "+1", "01", "1.5", "1e3", "0x1", "99999999999999999999", str(2**63), "%20", "1%20", "",
         "%D9%A1", "1%2F", "%2e%2e", "{repo_id}", "1_0", "null"],
    )  # fmt: skip
    async def test_to_a_repository_id_of(self, repo_id: str, client: Client) -> None:
        detail = "must be a positive integer"
        assert_problem(await client.send("GET", f"/repo/{repo_id}/secrets"), 400, detail)
        assert_problem(await client.send("GET", f"/repo/{repo_id}/secrets/x"), 400, detail)
        assert_problem(await client.send("DELETE", f"/repo/{repo_id}/secrets/y"), 400, detail)

    @pytest.mark.parametrize(("repo_id", "escaped"), [("7", "%37"), (str(2**63 - 1), str(2**63 - 1))])
    async def test_not_to_a_repository_id_that_is_one(self, repo_id: str, escaped: str, client: Client) -> None:
        reply = await client.send("GET", unique(f"/repo/{escaped}/secrets"))
        assert (reply.status, reply.json) == (200, []), repo_id

    @pytest.mark.parametrize(
        "query",
        ["page=x", "page=-1", "page=1.5", "page=", "page=%2B1", "page=1%200", "page=10000000000", "perPage=x",
         "perPage=-1", "perPage=", "page=1&perPage=0x5", "page=%D9%A1", "page=1&perPage=1e1"],
    )  # fmt: skip
    async def test_to_pages_of(self, query: str, client: Client, repo_id: int) -> None:
        reply = await client.send("GET", f"/repo/{repo_id}/secrets?{query}")
        assert_problem(reply, 400, "must be a number")


class TestA403IsGiven:
    """Where Vault denies what was asked: Woodpecker does not ask again, and the log has the cause."""

    @pytest.mark.parametrize(
        ("method", "path", "document"),
        [
            ("POST", "/secrets", pipeline_body()),
            ("GET", "/repo/1/secrets", None),
            ("GET", "/repo/1/secrets/token", None),
            ("POST", "/repo/1/secrets", {"name": "token", "value": "value", "events": ["push"]}),
            ("PUT", "/repo/1/secrets/token", {"value": "other"}),
            ("DELETE", "/repo/1/secrets/token", None),
        ],
    )
    @pytest.mark.parametrize("wrong", ["a wrong token", "no policy"])
    async def test_if_the_token_may_not_do_it(
        self, wrong: str, method: str, path: str, document: object, misconfigured: Mapping[str, Client]
    ) -> None:
        reply = await misconfigured[wrong].send(method, unique(path), document)
        assert_problem(reply, 403, "policy lacks")
        assert "Retry-After" not in reply.headers

    async def test_to_writes_alone_if_the_token_may_only_read(
        self, misconfigured: Mapping[str, Client], admin: Admin, repo_id: int
    ) -> None:
        client = misconfigured["a policy to read"]
        path = f"woodpecker/repo/{repo_id}/token"
        await admin.put(path, "value")
        document = {"name": "new", "value": "value", "events": ["push"]}
        assert (await client.secrets(repo={"id": repo_id}))["token"]["value"] == "value"
        assert (await client.send("GET", f"/repo/{repo_id}/secrets/token")).status == 200
        assert_problem(await client.send("POST", f"/repo/{repo_id}/secrets", document), 403)
        assert_problem(await client.send("PUT", f"/repo/{repo_id}/secrets/token", {"value": "x"}), 403)
        assert_problem(await client.send("DELETE", f"/repo/{repo_id}/secrets/token"), 403)
        assert (await admin.data(path), await admin.version(path)) == ({"value": "value"}, 1)
        assert await admin.list(f"woodpecker/repo/{repo_id}") == ["token"]

    async def test_if_there_is_no_such_mount(self, misconfigured: Mapping[str, Client]) -> None:
        reply = await misconfigured["a wrong mount"].send("GET", "/repo/1/secrets/token")
        assert_problem(reply, 403, "secrets.mount")


WRITES = [
    ("POST", "/secrets", pipeline_body()),
    ("GET", "/repo/1/secrets", None),
    ("GET", "/repo/1/secrets/token", None),
    ("POST", "/repo/1/secrets", {"name": "token", "value": "value", "events": ["push"]}),
    ("PUT", "/repo/1/secrets/token", {"value": "other"}),
    ("DELETE", "/repo/1/secrets/token", None),
]


class TestA503IsGiven:
    """Where asking again may help, and soon enough that Woodpecker is still there to hear it."""

    @pytest.mark.parametrize("mode", ["hang", "refuse", "cut"])
    @pytest.mark.parametrize(("method", "path", "document"), WRITES)
    async def test_if_vault_does(self, mode: str, method: str, path: str, document: object, frail: Frail) -> None:
        frail.vault.mode = mode
        started = time.monotonic()
        reply = await frail.client.send(method, unique(path), document)
        assert time.monotonic() - started < 9  # Woodpecker waits for ten
        assert_problem(reply, 503, "Vault")
        assert int(reply.headers["Retry-After"]) >= 1
        frail.vault.mode = "pass"
        frail.vault.drop()
        assert (await frail.client.send("GET", unique("/repo/1/secrets"))).status == 200

    async def test_within_the_time_that_is_set(self, frail: Frail) -> None:
        frail.vault.mode = "hang"
        reply = await frail.client.send("GET", unique("/repo/1/secrets"))
        assert_problem(reply, 503, "in time")
        line = await frail.service.logged(reply.json["request_id"])
        assert 400 <= line["ms"] < 5000

    async def test_if_the_body_does_not_come(self, frail: Frail) -> None:
        fields = "".join(f"{name}: {value}\n" for name, value in Signing().headers(frail.client.key).items())
        head = f"POST /secrets HTTP/1.1\nHost: x\nContent-Length: {len(BODY)}\n{fields}\n"
        reply = await over_a_socket(frail.service.url, head, BODY[:-1])
        assert_problem(reply, 503)
        assert reply.headers["Retry-After"]

    async def test_if_vault_is_stopped(self, serve: Serve, bao: OpenBao) -> None:
        proxy = Proxy(bao.address)
        async with AsyncExitStack() as stack:
            async with proxy.listening():
                client = (await stack.enter_async_context(serve(vault={"address": proxy.address}))).client
                assert (await client.send("POST", "/secrets", pipeline_body())).status == 200
            reply = await client.send("POST", "/secrets", pipeline_body())
            assert_problem(reply, 503, "cannot be reached")
            assert reply.headers["Retry-After"]
            assert (await client.raw("GET", "/readyz", None, {})).status == 503


class TestABodyMayHave:
    async def _served(self, service: Service, method: str, path: str, body: bytes, key: Ed25519PrivateKey) -> int:
        head = (
            f"{method} {path} HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\n"
            + "".join(f"{name}: {value}\n" for name, value in Signing(target=path).headers(key, body).items())
            + "\n"
        )
        half = len(body) // 2
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in (body[:half], body[half:], b""))
        return (await over_a_socket(service.url, head, chunks)).status

    async def test_several_chunks(self, service: Service, key: Ed25519PrivateKey) -> None:
        assert await self._served(service, "POST", "/secrets", BODY, key) == 200

    async def test_the_size_that_is_set_and_not_a_byte_more(self, serve: Serve, key: Ed25519PrivateKey) -> None:
        async with serve(server={"max_body_bytes": len(BODY) + 10}) as own:
            assert (await own.client.send("POST", "/secrets", body=BODY + b" " * 10)).status == 200
            reply = await own.client.send("POST", "/secrets", body=BODY + b" " * 11)
            assert_problem(reply, 413, "server.max_body_bytes")
            assert await self._served(own.service, "POST", "/secrets?1", BODY + b" " * 10, key) == 200
            assert await self._served(own.service, "POST", "/secrets?2", BODY + b" " * 11, key) == 413
            assert_problem(await own.client.send("PUT", "/nowhere", body=BODY * 2), 413)

    @large
    async def test_sixteen_mebibytes_and_not_a_byte_more(self, client: Client) -> None:
        padded = BODY + b" " * (16 * 1024 * 1024 - len(BODY))
        assert (await client.send("POST", "/secrets", body=padded)).status == 200
        assert_problem(await client.send("POST", "/secrets", body=padded + b" "), 413, "16777216 bytes")

    async def test_an_encoding_and_is_digested_as_received(self, client: Client) -> None:
        packed = gzip.compress(BODY)
        encoding = {"Content-Encoding": "gzip"}
        as_received = {**Signing().headers(client.key, packed), **encoding}
        as_decoded = {**Signing().headers(client.key, BODY), **encoding}
        assert_problem(await client.raw("POST", "/secrets", packed, as_received), 400)
        assert_problem(await client.raw("POST", "/secrets", packed, as_decoded), 401, "not the digest of the body")


class TestASignatureThatComesAgain:
    """Neither the method nor a nonce is signed, and honest clients repeat themselves within a second."""

    async def test_gets_the_same_answer_for_a_read(self, client: Client, admin: Admin, repo_id: int) -> None:
        await admin.put(f"woodpecker/repo/{repo_id}/token", "one")
        released = once(client, "POST", "/secrets", pipeline_body({"id": repo_id}))
        listed = once(client, "GET", f"/repo/{repo_id}/secrets")
        for ask in (released, listed):
            replies = [await ask(), *await asyncio.gather(*(ask() for _ in range(5)))]
            assert {(reply.status, reply.body) for reply in replies} == {(200, replies[0].body)}
        await admin.put(f"woodpecker/repo/{repo_id}/token", "two")
        assert b'"two"' in (await released()).body
        assert b'"two"' in (await listed()).body

    @pytest.mark.parametrize("at_once", [False, True])
    async def test_creates_once(self, at_once: bool, client: Client, admin: Admin, repo_id: int) -> None:  # noqa: FBT001
        document = {"name": "token", "value": "one", "events": ["push"], "images": ["alpine"]}
        ask = once(client, "POST", f"/repo/{repo_id}/secrets", document)
        replies = await asyncio.gather(ask(), ask(), ask()) if at_once else [await ask(), await ask(), await ask()]
        assert {(reply.status, reply.body) for reply in replies} == {(201, replies[0].body)}
        assert {reply.headers["Content-Type"] for reply in replies} == {"application/json"}
        assert len({reply.headers["X-Request-Id"] for reply in replies}) == 3
        assert await admin.version(f"woodpecker/repo/{repo_id}/token") == 1

    @pytest.mark.parametrize("at_once", [False, True])
    async def test_updates_once(self, at_once: bool, client: Client, admin: Admin, repo_id: int) -> None:  # noqa: FBT001
        path = f"woodpecker/repo/{repo_id}/token"
        await admin.put(path, "one")
        ask = once(client, "PUT", f"/repo/{repo_id}/secrets/token", {"value": "two"})
        replies = await asyncio.gather(ask(), ask(), ask()) if at_once else [await ask(), await ask(), await ask()]
        assert {(reply.status, reply.body) for reply in replies} == {(200, replies[0].body)}
        assert await admin.version(path) == 2

    @pytest.mark.parametrize("at_once", [False, True])
    async def test_deletes_once(self, at_once: bool, client: Client, admin: Admin, repo_id: int) -> None:  # noqa: FBT001
        path = f"woodpecker/repo/{repo_id}/token"
        await admin.put(path, "one")
        ask = once(client, "DELETE", f"/repo/{repo_id}/secrets/token")
        replies = await asyncio.gather(ask(), ask(), ask()) if at_once else [await ask(), await ask(), await ask()]
        assert {(reply.status, reply.body) for reply in replies} == {(204, b"")}
        await admin.put(path, "re-made")
        assert (await ask()).status == 204
        assert await admin.data(path) == {"value": "re-made"}

    async def test_does_not_undo_a_later_write(self, client: Client, admin: Admin, repo_id: int) -> None:
        path = f"woodpecker/repo/{repo_id}/token"
        await admin.put(path, "one")
        ask = once(client, "PUT", f"/repo/{repo_id}/secrets/token", {"value": "two"})
        first = await ask()
        await client.send("PUT", f"/repo/{repo_id}/secrets/token", {"value": "three"})
        again = await ask()
        assert (again.status, again.body) == (first.status, first.body)
        assert (await admin.data(path), await admin.version(path)) == ({"value": "three"}, 3)

    async def test_does_not_bring_back_what_was_deleted(self, client: Client, admin: Admin, repo_id: int) -> None:
        ask = once(client, "POST", f"/repo/{repo_id}/secrets", {"name": "token", "value": "one", "events": ["push"]})
        first = await ask()
        await client.send("DELETE", f"/repo/{repo_id}/secrets/token")
        again = await ask()
        assert (again.status, again.body) == (201, first.body)
        assert await admin.data(f"woodpecker/repo/{repo_id}/token") is None

    @pytest.mark.parametrize("mode", ["refuse", "hang"])
    async def test_may_do_what_failed_the_first_time(self, mode: str, frail: Frail, admin: Admin, repo_id: int) -> None:
        path = f"woodpecker/repo/{repo_id}/token"
        create = once(frail.client, "POST", f"/repo/{repo_id}/secrets", {"name": "token", "value": "one"})
        update = once(frail.client, "PUT", f"/repo/{repo_id}/secrets/token", {"value": "two"})
        delete = once(frail.client, "DELETE", f"/repo/{repo_id}/secrets/token")
        for ask, status, version in ((create, 201, 1), (update, 200, 2), (delete, 204, 2)):
            frail.vault.mode = mode
            assert_problem(await ask(), 503)
            frail.vault.mode = "pass"
            frail.vault.drop()

            async def done(ask: Callable[[], Awaitable[Reply]] = ask, status: int = status) -> bool:
                return (await ask()).status == status

            await until(done)
            assert await done()
            assert await admin.version(path) == version
        assert await admin.data(path) is None

    @pytest.mark.parametrize(
        ("first", "then"),
        [("GET", "DELETE"), ("GET", "PUT"), ("GET", "HEAD"), ("GET", "PATCH"), ("DELETE", "GET")],
    )
    async def test_is_refused_for_another_method(
        self, first: str, then: str, client: Client, admin: Admin, repo_id: int
    ) -> None:
        path = f"woodpecker/repo/{repo_id}/token"
        await admin.put(path, "one")
        url = f"/repo/{repo_id}/secrets/token"
        headers = signed_headers(client.key, client.url + url, None, int(time.time()))
        assert (await client.raw(first, url, None, headers)).status in {200, 204}
        await admin.put(path, "two")
        reply = await client.raw(then, url, None, headers)
        assert reply.status == 401
        assert then == "HEAD" or "used before" in reply.json["detail"]
        assert (await admin.data(path), await admin.version(path)) == ({"value": "two"}, 2)
        assert (await client.raw(first, url, None, headers)).status in {200, 204}

    async def test_is_refused_for_another_method_with_a_body(self, client: Client, admin: Admin, repo_id: int) -> None:
        path = unique("/secrets")
        body = _bodies(pipeline_body({"id": repo_id}), name="token", value="one")
        headers = signed_headers(client.key, client.url + path, body, int(time.time()))
        assert (await client.raw("POST", path, body, headers)).status == 200
        for method in ("GET", "PUT", "DELETE"):
            assert_problem(await client.raw(method, path, body, headers), 401, "used before")
        url = f"/repo/{repo_id}/secrets/token"
        await admin.put(f"woodpecker/repo/{repo_id}/token", "one")
        headers = signed_headers(client.key, client.url + url, b"{}", int(time.time()))
        assert (await client.raw("PUT", url, b"{}", headers)).status == 200
        for method in ("GET", "POST", "DELETE"):
            assert_problem(await client.raw(method, url, b"{}", headers), 401, "used before")
        assert await admin.data(f"woodpecker/repo/{repo_id}/token") == {"value": "one"}

    @pytest.mark.parametrize(
        ("name", "same", "sent"),
        [("a b", "a%20b", "%61%20b"), ("ab", "ab", "a%62"), ("a?b", "a%3Fb", "a?b"), ("a+b", "a+b", "a%2Bb")],
    )
    async def test_is_refused_for_a_target_that_only_decodes_to_the_same(
        self, client: Client, admin: Admin, repo_id: int, *, name: str, same: str, sent: str
    ) -> None:
        folder = f"woodpecker/repo/{repo_id}"
        await admin.put(f"{folder}/{name}", "one")
        await admin.put(f"{folder}/a", "of another name")
        headers = signed_headers(client.key, f"{client.url}/repo/{repo_id}/secrets/{same}", None, int(time.time()))
        assert (await client.raw("GET", f"/repo/{repo_id}/secrets/{same}", None, headers)).json["name"] == name
        for method in ("GET", "DELETE"):
            reply = await client.raw(method, f"/repo/{repo_id}/secrets/{sent}", None, headers)
            assert_problem(reply, 401, "used before")
        assert len(await admin.list(folder)) == 2


class TestABasePath:
    async def test_is_part_of_every_route_but_the_open_ones(self, serve: Serve, admin: Admin, repo_id: int) -> None:
        await admin.put(f"woodpecker/repo/{repo_id}/token", "one")
        async with serve(server={"base_path": "/only-we/know.this"}) as own:
            inside = own.client
            assert inside.url.endswith("/only-we/know.this")
            outside = replace(inside, url=inside.url.removesuffix("/only-we/know.this"))
            assert "token" in await inside.secrets(repo={"id": repo_id})
            assert (await inside.send("GET", f"/repo/{repo_id}/secrets/token")).status == 200
            assert_problem(await inside.send("GET", f"/repo/{repo_id}/secrets/a%20b"), 404, "no such secret")
            assert_problem(await outside.send("POST", "/secrets", pipeline_body()), 404, "server.base_path")
            assert_problem(await outside.send("POST", "/only-we/knowXthis/secrets", {}), 404, "server.base_path")
            assert_problem(await inside.send("GET", "/healthz"), 404)
            assert_problem(await inside.raw("GET", "/healthz", None, {}), 401)
            for path in ("/healthz", "/readyz"):
                assert (await outside.raw("GET", path, None, {})).status == 200
            assert_problem(reply := await outside.raw("GET", "/only%2Dwe/know%2Ethis/a%20b", None, {}), 401)
            await own.service.logged(reply.headers["X-Request-Id"])
            paths = [line["path"] for line in own.service.log if "path" in line]
            assert f"/repo/{repo_id}/secrets/a%20b" in paths
            assert not any("/only-we/know.this" in unquote(text) for text in own.service.raw_log)

    async def test_that_a_proxy_strips_is_signed_but_does_not_arrive(
        self, serve: Serve, admin: Admin, repo_id: int
    ) -> None:
        await admin.put(f"woodpecker/repo/{repo_id}/a b", "one")
        async with serve(server={"base_path": "/only-we/know", "proxy_strips_base_path": True}) as own:
            key = own.client.key
            root = "http://{0.hostname}:{0.port}".format(urlsplit(own.service.url))
            arriving = replace(own.client, url=root)

            async def stripped(method: str, path: str, document: object = None) -> Reply:
                body = None if document is None else json.dumps(document).encode()
                headers = signed_headers(key, f"{root}/only-we/know{path}", body, int(time.time()))
                return await arriving.raw(method, path, body, headers)

            assert (await stripped("POST", "/secrets", pipeline_body())).status == 200
            assert (await stripped("GET", f"/repo/{repo_id}/secrets/a%20b")).status == 200
            assert_problem(await stripped("GET", "/nowhere"), 404)
            assert_problem(await arriving.send("POST", "/secrets", pipeline_body()), 401, "server.base_path")
            whole = replace(arriving, url=f"{root}/only-we/know")
            assert_problem(await whole.send("POST", "/secrets", pipeline_body()), 401)
            for path in ("/healthz", "/readyz"):
                assert (await arriving.raw("GET", path, None, {})).status == 200


class TestTheLog:
    @large
    async def test_has_a_line_for_each_answer_under_the_id_that_the_answer_has(
        self, client: Client, service: Service, frail: Frail, repo_id: int
    ) -> None:
        path = f"/repo/{repo_id}/secrets"
        secret = {"name": "token", "value": "one", "events": ["push"]}
        replies = {
            "created": await client.send("POST", path, secret),
            "taken": await client.send("POST", path, {**secret, "value": "two"}),
            "read": await client.send("GET", f"{path}/token"),
            "deleted": await client.send("DELETE", f"{path}/token"),
            "gone": await client.send("DELETE", f"{path}/token", age=5),
            "invalid": await client.send("POST", path, {"name": "", "value": "x"}),
            "bad": await client.send("POST", path, {"name": 5}),
            "unsigned": await client.raw("GET", path, None, {}),
            "unrouted": await client.send("GET", unique("/nowhere")),
            "unallowed": await client.send("PATCH", unique(path)),
            "large": await client.send("POST", "/secrets", body=b" " * (16 * 1024 * 1024 + 1)),
        }
        statuses = [reply.status for reply in replies.values()]
        assert statuses == [201, 409, 200, 204, 404, 422, 400, 401, 404, 405, 413]
        ids = [reply.headers["X-Request-Id"] for reply in replies.values()]
        assert len(set(ids)) == len(ids)
        lines = [await service.logged(request_id) for request_id in ids]
        assert [line["status"] for line in lines] == statuses
        assert lines[0]["method"] == "POST"
        assert lines[2]["path"] == f"{path}/token"
        assert all(
            line.get("problem", "") == _detail(reply) for line, reply in zip(lines, replies.values(), strict=True)
        )
        assert {line["level"] for line in lines} == {"info", "warning"}
        frail.vault.mode = "refuse"
        broken = await frail.client.send("GET", unique(path))
        line = await frail.service.logged(broken.headers["X-Request-Id"])
        assert (line["status"], line["level"]) == (503, "error")
        assert line["cause"]

    @pytest.mark.parametrize("path", ["/healthz", "/readyz"])
    async def test_has_no_line_for_a_probe_which_has_an_id_all_the_same(
        self, path: str, client: Client, service: Service
    ) -> None:
        probe = await client.raw("GET", path, None, {"X-Request-Id": "chosen-by-the-client"})
        request_id = probe.headers["X-Request-Id"]
        assert request_id != "chosen-by-the-client"
        later = await client.raw("GET", "/secrets", None, {})
        await service.logged(later.headers["X-Request-Id"])
        assert not any(request_id in line for line in service.raw_log)

    async def test_says_who_got_what_and_who_did_not(
        self, client: Client, service: Service, admin: Admin, repo_id: int
    ) -> None:
        await admin.put(f"woodpecker/repo/{repo_id}/given", "one")
        await admin.put(f"woodpecker/repo/{repo_id}/withheld", "two", events="tag")
        body = pipeline_body({"id": repo_id, "full_name": "acme/shop"}, number=77, event="push")
        line = await service.logged((await client.send("POST", "/secrets", body)).headers["X-Request-Id"])
        assert (line["repository"], line["repo_id"], line["pipeline"]) == ("acme/shop", repo_id, 77)
        assert line["event_kind"] == "push"
        assert "given" in line["given"]
        assert line["withheld"]["withheld"] == "event push is not among tag"

    async def test_has_no_value_no_token_and_no_netrc_even_when_it_says_everything(
        self, serve: Serve, bao: OpenBao, admin: Admin, repo_id: int
    ) -> None:
        values = [f"hidden-{uuid.uuid4().hex}" for _ in range(8)]
        at = f"woodpecker/repo/{repo_id}"
        await admin.put(f"{at}/plain", values[0])
        await admin.put(f"{at}/withheld", values[1], events="tag")
        await admin.put(f"{at}/unreadable", values[2], events="[")
        await admin.put(f"{at}/bundle", {"key": values[3], "number": 1.5})
        await admin.put(f"{at}/with-number", {"value": values[4], "number": 1.5})
        async with (
            Proxy(bao.address).listening() as proxy,
            serve(log={"level": "debug"}, vault={"address": proxy.address}) as own,
        ):
            client = own.client
            path = f"/repo/{repo_id}/secrets"
            released = pipeline_body({"id": repo_id})
            new = {"name": "new", "value": values[5], "events": ["push"]}
            statuses = [
                (await client.send(*ask)).status
                for ask in (
                    ("POST", "/secrets", released),
                    ("GET", path),
                    ("GET", f"{path}/plain"),
                    ("GET", f"{path}/unreadable"),
                    ("GET", f"{path}/bundle_key"),
                    ("POST", path, new),
                    ("POST", path, {**new, "note": "again"}),
                    ("POST", path, {**new, "events": ["unknown"]}),
                    ("POST", path, {**new, "value": [values[6]]}),
                    ("POST", path, {**new, "images": values[6]}),
                    ("POST", path, {**new, "repo_id": values[6]}),
                    ("POST", "/secrets", {**released, "repo": {"id": values[6]}}),
                    ("PUT", f"{path}/new", {"value": values[7], "note": "a note"}),
                    ("PUT", f"{path}/with-number", {"value": values[7]}),
                    ("DELETE", f"{path}/new"),
                )
            ]
            assert statuses[:13] == [200, 200, 200, 422, 200, 201, 409, 422, 400, 400, 400, 400, 200]
            assert statuses[14] == 204
            assert (await client.raw("POST", path, json.dumps(new).encode(), {})).status == 401
            assert (await client.send("POST", path, body=json.dumps(new).encode()[:-1])).status == 400
            proxy.mode = "cut"
            assert (await client.send("POST", path, {**new, "name": "cut"})).status == 503
            proxy.mode = "pass"
        log = "".join(own.service.raw_log)
        assert log.count('"request_id"') >= 18
        for hidden in (*values, bao.token, "netrc-password"):
            assert hidden not in log


def _detail(reply: Reply) -> str:
    return str(reply.json["detail"]) if reply.status >= 400 else ""


class TestAskedToStop:
    async def test_the_service_answers_what_is_under_way_and_takes_nothing_new(
        self, serve: Serve, bao: OpenBao, admin: Admin, repo_id: int
    ) -> None:
        await admin.put(f"woodpecker/repo/{repo_id}/token", "one")
        document = {"name": "new", "value": "two"}
        async with Proxy(bao.address).listening() as proxy, serve(vault={"address": proxy.address}) as own:
            proxy.mode = "hang"
            read = asyncio.ensure_future(own.client.send("GET", f"/repo/{repo_id}/secrets/token"))
            written = asyncio.ensure_future(own.client.send("POST", f"/repo/{repo_id}/secrets", document))

            async def both_asked() -> bool:
                return proxy.connections >= 2

            async def closed() -> bool:
                parts = urlsplit(own.service.url)
                try:
                    _, writer = await asyncio.open_connection(parts.hostname, parts.port)
                except ConnectionRefusedError:
                    return True
                writer.close()
                return False

            await until(both_asked)
            stopping = asyncio.ensure_future(own.service.stop())
            await until(closed)
            assert not read.done()
            assert own.service.process.returncode is None
            proxy.mode = "pass"
            assert (await read).status == 200
            assert (await written).status == 201
            assert await stopping == 0
        assert await admin.data(f"woodpecker/repo/{repo_id}/new") == {"value": "two"}
        assert any(line["event"].startswith("stopping") for line in own.service.log)

    async def test_the_service_ends_at_once_if_nothing_is_under_way(self, serve: Serve) -> None:
        async with serve() as own:
            assert (await own.client.send("POST", "/secrets", pipeline_body())).status == 200
            started = time.monotonic()
            assert await own.service.stop() == 0
            assert time.monotonic() - started < 8  # it would wait for nine


class TestTheAlphaForm:
    """A repository's admin can have his own pipeline's body signed for any path, but nothing else."""

    @pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
    async def test_refuses_a_pipelines_body(self, method: str, client: Client, admin: Admin, repo_id: int) -> None:
        await admin.put(f"woodpecker/repo/{repo_id}/token", "one")
        many, one = f"/repo/{repo_id}/secrets", f"/repo/{repo_id}/secrets/token"
        stolen = json.dumps(pipeline_body({"id": repo_id + 1})).encode()
        for path in (one,) if method in {"PUT", "DELETE"} else (many,) if method == "POST" else (one, many):
            reply = await client.send(method, unique(path), body=stolen)
            assert_problem(reply, 401, "made for something else")
            assert b"one" not in reply.body
        assert await admin.data(f"woodpecker/repo/{repo_id}/token") == {"value": "one"}

    async def test_takes_the_digest_of_an_empty_body(self, client: Client, repo_id: int) -> None:
        assert (await client.send("GET", unique(f"/repo/{repo_id}/secrets"), body=b"")).status == 200

    @pytest.mark.parametrize(
        ("alpha", "statuses"),
        [("off", [404, 404, 404, 404, 404]), ("read", [200, 404, 404, 404, 404]), ("write", [200, 422, 404, 404, 404])],
    )
    async def test_is_served_as_far_as_the_settings_say(self, alpha: str, statuses: list[int], serve: Serve) -> None:
        async with serve(secrets={"alpha": alpha}) as own:
            many, one = "/repo/999999/secrets", "/repo/999999/secrets/token"
            document = {"name": "", "value": "x"}
            asks = [("GET", many, None), ("POST", many, document), ("GET", one, None), ("PUT", one, {"value": "x"})]
            replies = [await own.client.send(*ask) for ask in [*asks, ("DELETE", f"{one}?x", None)]]
            assert [reply.status for reply in replies] == statuses
            assert (await own.client.send("POST", "/secrets", pipeline_body())).status == 200
            if alpha == "off":
                assert_problem(replies[0], 404, "secrets.alpha")
