"""What ``/readyz`` says: whether there is a key to verify with, and whether Vault can be used."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

Ready = Callable[[], Awaitable[tuple[bool, Mapping[str, Any]]]]


def with_key(vault: Ready, missing: Callable[[], str]) -> Ready:
    """Vault's own document, with a part ``key`` before the others.

    Args:
        vault: whether Vault is usable, and a document with ``checks``.
        missing: why there is no public key, or an empty text.
    """

    async def ready() -> tuple[bool, Mapping[str, Any]]:
        well, document = await vault()
        lacks = missing()
        key = {"ok": False, "detail": lacks} if lacks else {"ok": True}
        well = well and not lacks
        status = "ready" if well else "not ready"
        return well, {**document, "status": status, "checks": {"key": key, **document["checks"]}}

    return ready
