"""The peer as a fixture."""

from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.peers.peer import NoGo, Peer, build
from tests.servers import Service
from woodpecker_vault.cli.stand_in import private_pem

_BUILT = pytest.StashKey[str]()


@pytest.fixture(scope="session")
async def peer_binary(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config, key_file: Path) -> Path:
    """The program, built once for the whole run."""
    try:
        binary = await build(tmp_path_factory.mktemp("woodpecker-peer"))
    except NoGo as reason:
        pytest.skip(f"Woodpecker's signer cannot be built: {reason}")
    built = await Peer(binary, key_file).run({"steps": []})
    pytestconfig.stash[_BUILT] = f"httpsign {built['signer']}, Go {built['go'].removeprefix('go')}"
    return binary


@pytest.fixture(autouse=True)
def signer(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> None:
    """Note with each test that the signer was really there; the end of the run counts these."""
    if {"peer_binary", "peer_at", "peer", "stranger"} & set(request.fixturenames):
        request.getfixturevalue("peer_binary")
        record_property("signer", request.config.stash[_BUILT])


@pytest.fixture(scope="session")
def key_file(tmp_path_factory: pytest.TempPathFactory, key: Ed25519PrivateKey) -> Path:
    """Woodpecker's private key, as a file."""
    return _written(tmp_path_factory.mktemp("key") / "woodpecker.pem", key)


@pytest.fixture(scope="session")
def peer_at(peer_binary: Path, key_file: Path) -> Callable[[str], Peer]:
    """Woodpecker, set up to ask the extension at a URL."""
    return lambda url: Peer(peer_binary, key_file, url)


@pytest.fixture
def peer(peer_at: Callable[[str], Peer], service: Service) -> Peer:
    """Woodpecker, set up to ask the service."""
    return peer_at(service.url)


@pytest.fixture
def stranger(peer_binary: Path, folder: Path, service: Service) -> Peer:
    """Another Woodpecker, whose key the service does not know."""
    return Peer(peer_binary, _written(folder / "stranger.pem", Ed25519PrivateKey.generate()), service.url)


def _written(file: Path, key: Ed25519PrivateKey) -> Path:
    file.write_bytes(private_pem(key))
    return file
