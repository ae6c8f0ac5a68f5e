"""File descriptors: the limit, and the part of it for connections."""

import sys

import pytest

from tests.cli import run
from woodpecker_vault.cli.descriptors import for_connections

RAISED = """
import resource
from woodpecker_vault.cli.descriptors import open_files, raise_limit
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
raise_limit()
print(open_files())
"""


@pytest.mark.parametrize(("soft", "hard"), [(100, 300), (300, 300)])
async def test_the_soft_limit_becomes_the_hard_one(soft: int, hard: int) -> None:
    finished = await run(sys.executable, "-c", RAISED.format(soft=soft, hard=hard))
    assert finished.out.strip() == str(hard), finished.err


@pytest.mark.parametrize(
    ("limit", "to_vault", "expected"),
    [
        (1024, 32, 928),
        (1_000_000, 32, 10_000),
        (-1, 32, 10_000),
        (100, 32, 50),
        (1024, 1000, 512),
    ],
)
def test_some_are_kept_for_vault_and_the_rest(limit: int, to_vault: int, expected: int) -> None:
    assert for_connections(limit, to_vault, 10_000) == expected
