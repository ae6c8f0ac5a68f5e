"""File descriptors: as many as the system lets this process have, and how many of them connections may take."""

import contextlib
import resource

_OURS = 64
"""Descriptors kept for other things than connections, besides those to Vault: files, Woodpecker's key, the log."""


def raise_limit() -> None:
    """Raise the soft limit to the hard one, if the system lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):  # macOS refuses an unlimited one
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def open_files() -> int:
    """How many files and connections this process may have open; negative if there is no limit."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def for_connections(limit: int, to_vault: int, most: int) -> int:
    """How many connections may be open.

    Args:
        limit: of file descriptors; negative if there is none.
        to_vault: how many connections to Vault there may be.
        most: what is enough in any case.
    """
    if limit < 0:
        return most
    return min(most, max(limit // 2, limit - to_vault - _OURS))
