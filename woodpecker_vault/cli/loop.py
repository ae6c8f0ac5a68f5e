"""The event loop of the commands: uvloop where it is installed, and an orderly end when asked to stop."""

import asyncio
import contextlib
import signal
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any

STOPS = (signal.SIGINT, signal.SIGTERM)


def run(main: Coroutine[Any, Any, None], stops: Sequence[signal.Signals] = STOPS) -> None:
    """Run a command to its end, or until one of these signals: then it is cancelled, and ends what it started."""
    try:
        import uvloop  # noqa: PLC0415 - it is not to be had on every platform
    except ImportError:  # pragma: no cover - it is on the platforms that the tests run on
        new_loop = asyncio.new_event_loop
    else:
        new_loop = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(_until_asked_to_stop(main, stops))


@contextlib.contextmanager
def hangup(heard: Callable[[], None]) -> Iterator[None]:
    """Call this in the running loop at each SIGHUP, which never ends the process inside the block.

    Not by the loop's own handlers: with the loop they end, and then the signal would kill what is still ending.
    """
    loop = asyncio.get_running_loop()
    before = signal.signal(signal.SIGHUP, lambda *_: loop.call_soon_threadsafe(heard))
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


async def _until_asked_to_stop(main: Coroutine[Any, Any, None], stops: Sequence[signal.Signals]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in stops:
        loop.add_signal_handler(number, stop.set)
    asked, running = asyncio.ensure_future(stop.wait()), asyncio.ensure_future(main)
    await asyncio.wait({asked, running}, return_when=asyncio.FIRST_COMPLETED)
    for number in stops:
        loop.remove_signal_handler(number)  # a second signal is not asked, but obeyed
    asked.cancel()
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
