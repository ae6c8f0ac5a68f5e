"""Every login against a real server; here is what their tests share."""

import asyncio
import json
import time
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from tests.servers import Admin
from woodpecker_vault.budget import Budget
from woodpecker_vault.cli.openbao import OpenBao
from woodpecker_vault.vault.connection import Connection, open_session
from woodpecker_vault.vault.logins import Grant
from woodpecker_vault.vault.sending import Patience, Sender
from woodpecker_vault.vault.transport import Adapter


@asynccontextmanager
async def login_adapter(server: OpenBao | Connection) -> AsyncIterator[Adapter]:
    """What a login sends its requests with."""
    connection = Connection(server.address) if isinstance(server, OpenBao) else server
    patience = Patience(Budget(8.0, time.monotonic), 0, lambda: 0.5, asyncio.sleep)
    async with open_session(connection) as session:
        yield Adapter(Sender(session, connection, patience), connection.namespace)


@asynccontextmanager
async def enabled(admin: Admin, kind: str, mount: str, **settings: Any) -> AsyncIterator[str]:
    """``bao auth enable -path=MOUNT KIND``, and its ``config`` if there is any, until the block ends."""
    status, answer = await admin.call("POST", f"sys/auth/{mount}", {"type": kind})
    assert status == 204, answer
    try:
        if settings:
            await write(admin, f"auth/{mount}/config", **settings)
        yield mount
    finally:
        await admin.call("DELETE", f"sys/auth/{mount}")


async def write(admin: Admin, path: str, /, **document: Any) -> Any:
    """``bao write PATH …``; its data."""
    status, answer = await admin.call("POST", path, document)
    assert status in {200, 204}, answer
    return answer.get("data")


async def known(admin: Admin, grant: Grant) -> Mapping[str, Any]:
    """What Vault knows of the token."""
    status, answer = await admin.call("POST", "auth/token/lookup", {"token": grant.token})
    assert status == 200, answer
    data: Mapping[str, Any] = answer["data"]
    return data


def signed_jwt(key: EllipticCurvePrivateKey, **claims: Any) -> str:
    """A JWT signed with ES256 (RFC 7518, section 3.4)."""
    parts = ({"alg": "ES256", "typ": "JWT"}, {"iat": int(time.time()) - 5, "exp": int(time.time()) + 600, **claims})
    text = ".".join(_base64url(json.dumps(part).encode()) for part in parts)
    r, s = decode_dss_signature(key.sign(text.encode(), ECDSA(SHA256())))
    return f"{text}.{_base64url(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def _base64url(content: bytes) -> str:
    return urlsafe_b64encode(content).rstrip(b"=").decode()
