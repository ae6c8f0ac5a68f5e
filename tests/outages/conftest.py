"""An OpenBao for each file: raft storage, so that it can be sealed and stopped, with an audit log and AppRole."""

import json
from collections.abc import AsyncIterator

import aiohttp
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.outages import Place
from tests.vault.raft import raft


@pytest.fixture(scope="module")
async def lasting_place(
    tmp_path_factory: pytest.TempPathFactory, session: aiohttp.ClientSession, key: Ed25519PrivateKey
) -> AsyncIterator[Place]:
    """Started once for a file, as that takes a moment."""
    folder = tmp_path_factory.mktemp("outages")
    audit = folder / "audit.log"
    more = f'audit "file" "calls" {{\noptions {{\nfile_path = {json.dumps(str(audit))}\n}}\n}}\n'
    async with raft(tmp_path_factory.mktemp("raft"), session, more) as node:
        place = Place(node, key, session, folder, audit)
        await place.call("POST", "sys/auth/approle", {"type": "approle"})
        await place.policy("reader")
        yield place


@pytest.fixture
async def place(lasting_place: Place) -> Place:
    """Unsealed, whatever the test before did to it. What tests change in it has names of their own."""
    await lasting_place.mend()
    return lasting_place
