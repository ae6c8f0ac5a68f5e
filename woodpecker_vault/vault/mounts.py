"""Is ``secrets.mount`` what it should be: the path of a KV version 2 secrets engine, whole and no longer?

Where a KV version 2 engine has nothing, it answers 404 without a word. So do other engines, and so does that very
engine where ``secrets.mount`` goes on behind it (``secret/metadata``): to read such an answer as "nothing there" would
be to give pipelines no secrets for a typing error.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

from hvac.utils import format_url

from woodpecker_vault.errors import Denied, NotVault, TokenRefused
from woodpecker_vault.vault.faults import Missing, translated, well_formed
from woodpecker_vault.vault.transport import Adapter


class Mount:
    """A mount that is looked at once, before the first time that it matters.

    Args:
        adapter: sends the request, with our token.
        path: without slashes around it.
    """

    def __init__(self, adapter: Adapter, path: str) -> None:
        self._adapter = adapter
        self._path = path.strip("/")
        self._settled = False
        self._looking = asyncio.Lock()

    async def check(self) -> None:
        """Return if the mount is right, or if Vault does not let our token find out.

        Raises:
            Denied: it is not; asked again the next time.
            Unavailable: Vault cannot be asked.
        """
        async with self._looking:
            if not self._settled:
                await self._look()
                self._settled = True

    async def _look(self) -> None:
        doing = "look the mount up"
        try:
            with translated(doing):
                answer = await self._adapter.request("get", url_of(self._path), patient=False)
        except TokenRefused:
            raise
        except (Denied, Missing, NotVault):
            return  # whoever hides this would hide it the next time, too
        with well_formed(doing):
            wrong = what_is_wrong(answer["data"], self._path)
        if wrong:
            raise Denied(wrong, cause=doing)


def url_of(path: str) -> str:
    """Where Vault says, to any token that may see the mount, what is mounted at or above a path."""
    url: str = format_url("/v1/sys/internal/ui/mounts/{mount}", mount=path)
    return url


def what_is_wrong(found: Mapping[str, Any], path: str) -> str:
    """Why a path is not that of a KV version 2 mount, and what to do; empty if it is.

    Args:
        found: what Vault says of the mount at or above the path.
        path: ``secrets.mount``, without slashes around it.

    Raises:
        LookupError, TypeError, AttributeError: that is not what Vault says of a mount.
    """
    mounted = str(found.get("path") or path).strip("/")
    if mounted != path:
        return (
            f"{path}/ is not a mount, but a path behind the mount {mounted}/: check secrets.mount and secrets.layers."
        )
    if found["type"] != "kv" or (found["options"] or {}).get("version") != "2":
        return f"The mount {path}/ is not a KV version 2 secrets engine: check secrets.mount."
    return ""
