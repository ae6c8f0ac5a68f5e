"""The event loop of the commands: uvloop where it is installed, and a way to be asked to stop."""

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run a command to its end."""
    try:
        import uvloop  # noqa: PLC0415 - it is not to be had on every platform
    except ImportError:  # pragma: no cover - it is on the platforms that the tests run on
        new_loop = asyncio.new_event_loop
    else:
        new_loop = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main)


async def asked_to_stop() -> None:
    """Wait for SIGINT or SIGTERM."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    try:
        await stop.wait()
    finally:
        # A second signal is not asked, but obeyed.
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
