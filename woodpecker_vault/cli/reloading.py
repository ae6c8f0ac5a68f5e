"""What is read again when somebody asks for it (SIGHUP)."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

log = logging.getLogger(__name__)


class Reloads:
    """Everything that can be read again while the service runs. Each part logs what came of it."""

    def __init__(self) -> None:
        self._parts: list[Callable[[], Awaitable[None] | None]] = []
        self._asked = asyncio.Event()

    def add(self, part: Callable[[], Awaitable[None] | None]) -> None:
        """One thing that can be read again."""
        self._parts.append(part)

    def ask(self) -> None:
        """Read everything again soon. Asked again meanwhile, it is done once more."""
        self._asked.set()

    async def live(self) -> None:
        """Do what is asked for, until cancelled."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            log.info("reading certificates, keys and credentials again")
            for part in self._parts:
                try:
                    done = part()
                    if done is not None:
                        await done
                except Exception as error:  # noqa: BLE001 - whatever it is, the other parts are read all the same
                    log.error("something cannot be read again", extra={"cause": type(error).__name__})  # noqa: TRY400
