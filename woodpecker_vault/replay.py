"""What has already been asked under a signature.

Woodpecker's signature covers neither the method nor a nonce, and two equal requests within one second carry the same
signature bytes. So a repeat is not refused as such: it is refused when it comes with another method or target than
before, and a write that was answered is answered again, not done again.

The memory is this process's own, and bounded: nothing is kept longer than a signature can be fresh.
"""

from dataclasses import dataclass
from typing import Generic, TypeVar

from woodpecker_vault.errors import Conflict, SignatureRefused, Unavailable

Answer = TypeVar("Answer")


@dataclass(slots=True)
class _Seen(Generic[Answer]):
    request: int
    forget_at: float
    done: bool = False
    answer: Answer | None = None
    size: int = 0


class Memory(Generic[Answer]):
    """Signatures seen while they are fresh, and the answers to writes among them.

    Args:
        lifetime: how long a signature can stay fresh, in seconds; what is older is forgotten.
        capacity: how many signatures are kept. When all are fresh, new ones are turned away rather than old
            ones forgotten.
        answer_bytes: how much room all kept answers may take together; beyond it the oldest are dropped, while
            it stays known that their writes were done.
    """

    def __init__(self, *, lifetime: float, capacity: int = 50_000, answer_bytes: int = 2 * 1024 * 1024) -> None:
        self.lifetime = lifetime
        self._capacity = capacity
        self._room = answer_bytes
        self._seen: dict[bytes, _Seen[Answer]] = {}
        self._answered: dict[bytes, None] = {}

    def __len__(self) -> int:
        """How many signatures are remembered."""
        return len(self._seen)

    def admit(self, signature: bytes, method: str, target: str, now: float) -> None:
        """Let a verified request pass, and remember what its signature was used for.

        Args:
            signature: the bytes of the signature.
            method: the request's method.
            target: its raw target: two that differ may share a signature, as their decoded forms may be equal.
            now: seconds of a clock that never goes back.

        Raises:
            SignatureRefused: the signature came before, with another method or target.
            Unavailable: there is no room to remember it.
        """
        self.forget(now)
        request = hash((method, target))
        seen = self._seen.get(signature)
        if seen is None:
            if len(self._seen) >= self._capacity:
                raise Unavailable("Too many requests within the lifetime of a signature; try again shortly.")
            self._seen[signature] = _Seen(request, now + self.lifetime)
        elif seen.request != request:
            raise SignatureRefused("This signature was used before, for another method or path.")

    def keep(self, signature: bytes, answer: Answer, size: int) -> None:
        """Remember the answer to an admitted write; ``size`` is the room it takes, in bytes."""
        seen = self._seen.get(signature)
        if seen is None or seen.done:
            return
        seen.done, seen.answer, seen.size = True, answer, size
        self._answered[signature] = None
        self._room -= size
        while self._room < 0:
            self._drop_answer(next(iter(self._answered)))

    def recall(self, signature: bytes) -> Answer | None:
        """The answer that an earlier write under this signature got; ``None`` if there was none.

        Raises:
            Conflict: the write was done, but its answer had to make room for others.
        """
        seen = self._seen.get(signature)
        if seen is None or not seen.done:
            return None
        if seen.answer is None:
            raise Conflict("This very request was carried out already; read the secret to see what it is now.")
        return seen.answer

    def forget(self, now: float) -> None:
        """Drop everything that can no longer be fresh, values in kept answers with it."""
        while self._seen:
            signature, seen = next(iter(self._seen.items()))
            if seen.forget_at > now:
                return
            self._drop_answer(signature)
            del self._seen[signature]

    def _drop_answer(self, signature: bytes) -> None:
        if signature in self._answered:
            del self._answered[signature]
            seen = self._seen[signature]
            self._room += seen.size
            seen.answer, seen.size = None, 0
