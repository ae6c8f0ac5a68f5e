"""Vault's addresses: which of them to try first, and which have shown that it is Vault that answers there."""

from collections.abc import Sequence

from yarl import URL


class Addresses:
    """Several addresses of one Vault. The one that answered last is tried first the next time."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._addresses = list(addresses)
        self._origins = {_origin(address): address for address in addresses}
        self._first = 0
        self._shown: set[str] = set()

    def in_turn(self) -> list[str]:
        """All of them, in the order in which to try them."""
        return self._addresses[self._first :] + self._addresses[: self._first]

    def prefer(self, address: str) -> None:
        """This one answered."""
        self._first = self._addresses.index(address)

    def show(self, address: str) -> None:
        """This one has given an answer that only Vault gives."""
        self._shown.add(address)

    def has_shown(self, address: str) -> bool:
        """Whether this one ever has."""
        return address in self._shown

    def at(self, location: str) -> str | None:
        """The one that a redirect leads to; ``None`` if it leads elsewhere, where our token has no business."""
        try:
            return self._origins.get(_origin(location))
        except ValueError:  # nonsense
            return None


def _origin(url: str) -> tuple[str, str | None, int | None]:
    """Scheme, host and port, the latter also where it is the scheme's own (RFC 6454)."""
    parts = URL(url)
    return parts.scheme, parts.host, parts.port
