"""What is made of files, and made again when they change: keys and certificates."""

import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Generic, TypeVar

Made = TypeVar("Made")
_State = tuple[tuple[str, int, int, int] | None, ...] | None

log = logging.getLogger(__name__)


class Watched(Generic[Made]):
    """What was made of some files, made anew when one of them changes; if that fails, the last good one stays.

    Args:
        name: what it is, for the log: ``"a public key file"``.
        files: the files it is made of. Asked each time, because a folder may hold others later.
        make: makes it of what the files hold now.

    Raises:
        OSError, ValueError: it cannot be made at the start.
    """

    def __init__(self, name: str, files: Callable[[], Iterable[Path]], make: Callable[[], Made]) -> None:
        self._name = name
        self._files = files
        self._make = make
        self._state = self._look()
        self._warned_of: _State = ()
        self._made = make()

    def current(self) -> Made:
        """What the files make now, or what they last made without an error."""
        state = self._look()
        if state != self._state:
            self._try("%s changed", state, again=False)
        return self._made

    def reload(self) -> None:
        """Make it anew, even if no file seems to have changed, and log what came of it."""
        self._try("%s was read again", self._look(), again=True)

    def _try(self, done: str, state: _State, *, again: bool) -> None:
        try:
            self._made = self._make()
        except (OSError, ValueError) as error:
            if again or state != self._warned_of:
                log.warning(
                    "%s cannot be read; the last good one stays",
                    self._name,
                    extra={"file": self._named(), "cause": str(error) or type(error).__name__},
                )
            self._warned_of = state
        else:
            self._state = state
            self._warned_of = ()
            log.info(done, self._name, extra={"file": self._named()})

    def _look(self) -> _State:
        """Something that differs when a file does: its time, size and number."""
        try:
            return tuple(map(_state, self._files()))
        except OSError:  # the folder that they are in is gone
            return None

    def _named(self) -> str:
        try:
            return ", ".join(map(str, self._files()))
        except OSError as error:
            return str(error.filename)


def _state(file: Path) -> tuple[str, int, int, int] | None:
    try:
        stat = file.stat()
    except OSError:
        return None
    return str(file), stat.st_mtime_ns, stat.st_size, stat.st_ino
