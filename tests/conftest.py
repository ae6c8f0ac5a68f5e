"""Fixtures: one real OpenBao and one service for the whole run, and in them a repository of its own for each test."""

import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import settings as hypothesis_settings

from tests.servers import Admin, Client, Service, serving, settings
from woodpecker_vault.cli.openbao import OpenBao, in_memory

_ids = itertools.count(1000)

# An example may take longer than Hypothesis likes, on a machine that does something else, too.
hypothesis_settings.register_profile("unhurried", deadline=None)
hypothesis_settings.load_profile("unhurried")


@pytest.fixture(scope="session")
async def bao(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[OpenBao]:
    """A real OpenBao in memory, KV version 2 at ``secret/``."""
    async with in_memory(tmp_path_factory.mktemp("openbao")) as server:
        yield server


@pytest.fixture(scope="session")
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """The connections of the tests themselves."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        yield session


@pytest.fixture(scope="session")
def key() -> Ed25519PrivateKey:
    """The key of the Woodpecker server."""
    return Ed25519PrivateKey.generate()


@pytest.fixture(scope="session")
def admin(bao: OpenBao, session: aiohttp.ClientSession) -> Admin:
    """A Vault admin."""
    return Admin(bao, session)


@pytest.fixture(scope="session")
async def service(
    tmp_path_factory: pytest.TempPathFactory, bao: OpenBao, key: Ed25519PrivateKey
) -> AsyncIterator[Service]:
    """The service as users run it, with default settings. Tests that break it start one of their own."""
    async with serving(tmp_path_factory.mktemp("service"), settings(key, bao)) as service:
        yield service


@pytest.fixture(scope="session")
async def replica(
    tmp_path_factory: pytest.TempPathFactory, bao: OpenBao, key: Ed25519PrivateKey
) -> AsyncIterator[Service]:
    """A second service on the same Vault."""
    async with serving(tmp_path_factory.mktemp("replica"), settings(key, bao)) as service:
        yield service


@pytest.fixture
def client(service: Service, session: aiohttp.ClientSession, key: Ed25519PrivateKey) -> Client:
    """Woodpecker, asking the service."""
    return Client(session, service.url, key)


@pytest.fixture
def other_client(replica: Service, session: aiohttp.ClientSession, key: Ed25519PrivateKey) -> Client:
    """Woodpecker, asking the second service."""
    return Client(session, replica.url, key)


@pytest.fixture
def repo_id() -> int:
    """A repository that no other test uses; its entries are at ``woodpecker/repo/<id>/``."""
    return next(_ids)


@pytest.fixture
def org_id() -> int:
    """An organization that no other test uses."""
    return next(_ids)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a test that starts a service of its own keeps its settings."""
    return tmp_path


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say whether Woodpecker's own signer was really there: a run without it must not look like one with it."""
    stats = terminalreporter.stats
    signers = [
        dict(report.user_properties)["signer"]
        for outcome in ("passed", "failed")
        for report in stats.get(outcome, [])
        if report.when == "call" and "signer" in dict(report.user_properties)
    ]
    skipped = [report for report in stats.get("skipped", []) if report.nodeid.startswith("tests/peers/")]
    if signers:
        terminalreporter.write_line(f"Woodpecker's signer ({signers[0]}): ran {len(signers)} tests", green=True)
    elif skipped:
        reason = skipped[0].longrepr[2].removeprefix("Skipped: ")
        terminalreporter.write_line(f"Woodpecker's signer: SKIPPED {len(skipped)} tests: {reason}", yellow=True)
