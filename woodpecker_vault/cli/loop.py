"""The event loop of the commands: uvloop where it is installed, and an orderly end when asked to stop."""

import asyncio
import contextlib
import signal
from collections.abc import Coroutine
from typing import Any


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run a command to its end, or until SIGINT or SIGTERM: then it is cancelled, and ends what it started."""
    try:
        import uvloop  # noqa: PLC0415 - it is not to be had on every platform
    except ImportError:  # pragma: no cover - it is on the platforms that the tests run on
        new_loop = asyncio.new_event_loop
    else:
        new_loop = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(_until_asked_to_stop(main))


async def _until_asked_to_stop(main: Coroutine[Any, Any, None]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    asked, running = asyncio.ensure_future(stop.wait()), asyncio.ensure_future(main)
    await asyncio.wait({asked, running}, return_when=asyncio.FIRST_COMPLETED)
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.remove_signal_handler(number)  # a second signal is not asked, but obeyed
    asked.cancel()
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
