"""Several things at once."""

import asyncio
from collections.abc import Awaitable, Iterable
from typing import TypeVar

Result = TypeVar("Result")


async def all_of(awaitables: Iterable[Awaitable[Result]]) -> list[Result]:
    """Every result, in order. At the first failure the others are cancelled, and it alone is raised."""
    tasks = [asyncio.ensure_future(awaitable) for awaitable in awaitables]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        raise
