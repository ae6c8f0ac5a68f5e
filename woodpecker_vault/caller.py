"""For whom Vault is asked, said in headers, so that Vault's audit log and ours can be put side by side."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from urllib.parse import quote

from woodpecker_vault import __version__

_LONGEST = 256
"""Bytes of each part of a pipeline's description that are sent; a branch may be as long as it likes."""

_PLAIN = "!\"#$&'()*+,/:;<=>?@[\\]^`{|}"
"""What a header holds as it is, besides letters, digits and ``_.-~``: printable ASCII without ``%`` and the blank."""


@dataclass(slots=True)
class _Request:
    id: str
    pipeline: str = ""


class Caller:
    """Whoever waits for what is done now. It belongs to a request and to everything done for it, like its time."""

    def __init__(self) -> None:
        self._request: ContextVar[_Request | None] = ContextVar("request", default=None)

    @contextmanager
    def begun(self, request_id: str) -> Iterator[None]:
        """What is done inside, in this task and those it makes, is done for this request."""
        before = self._request.set(_Request(request_id))
        try:
            yield
        finally:
            self._request.reset(before)

    def is_pipeline(self, repository: str, number: int, event: str, branch: str) -> None:
        """The current request asks for this pipeline."""
        request = self._request.get()
        if request is not None:
            request.pipeline = described(repository, number, event, branch)

    def headers(self) -> Mapping[str, str]:
        """``User-Agent``, and of whom it is known ``X-Request-Id`` and ``X-Woodpecker-Pipeline``."""
        fields = {"User-Agent": f"woodpecker-vault/{__version__}"}
        request = self._request.get()
        if request is not None:
            fields["X-Request-Id"] = request.id
            if request.pipeline:
                fields["X-Woodpecker-Pipeline"] = request.pipeline
        return fields


def described(repository: str, number: int, event: str, branch: str) -> str:
    """A pipeline as a header can hold it: ``acme/widgets#17 push main``.

    A blank inside a part, ``%`` and whatever is not printable ASCII is percent-encoded, as UTF-8, so that nobody who
    chooses one part can forge another.
    """
    parts = (f"{repository}#{number}", event, branch)
    return " ".join(quote(part.encode(errors="replace")[:_LONGEST], safe=_PLAIN) for part in parts if part)
