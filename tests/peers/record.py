"""Record ``tests/data/woodpecker-requests.json`` anew: each kind of request, signed by Woodpecker's signer.

``python -m tests.peers.record``, in the project's folder. Needs Go. The key is everybody's: test-key-ed25519 of
RFC 9421, appendix B.1.4.
"""

import asyncio
import json
import re
import tempfile
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.peers.peer import Peer, Step, build
from woodpecker_vault.cli.stand_in import private_pem

VECTORS = Path(__file__).parents[1] / "data" / "woodpecker-requests.json"

KEY = Ed25519PrivateKey.from_private_bytes(
    bytes.fromhex("9f8362f87a484a954e6e740c5b4c0e84229139a20aa8ab56ff66586f6a7d29c5")
)

_REPO: dict[str, Any] = {
    "id": 1,
    "forge_id": 1,
    "forge_remote_id": "4711",
    "org_id": 7,
    "owner": "acme",
    "name": "shop",
    "full_name": "acme/shop",
    "clone_url": "https://forge.example/acme/shop.git",
    "default_branch": "main",
    "pr_enabled": True,
    "timeout": 60,
    "visibility": "private",
    "private": True,
    "require_approval": "forks",
    "active": True,
}
_PIPELINE: dict[str, Any] = {
    "id": 100,
    "number": 12,
    "author": "octocat",
    "event": "pull_request",
    "status": "created",
    "branch": "main",
    "ref": "refs/pull/5/head",
    "commit": "2fff90f8d288a4640e90f05049fe30e61a14fd50",
    "pr_labels": ["naïve & <bold>", "日本語"],  # Go's encoder escapes &, < and >, and leaves the rest as UTF-8
    "from_fork": True,
    "message": "Add a shelf",
    "sender": "octocat",
}
_NETRC = {"machine": "forge.example", "login": "octocat", "password": "netrc-password", "type": "gitea"}
_SECRET = {"name": "token", "value": "sample-value", "images": ["alpine"], "events": ["push", "tag"]}
_BASE = "/b/s3cr3t"

_QUESTION: Step = {"repo": _REPO, "pipeline": _PIPELINE}

NAMES = (
    "token",
    "with space",
    "Grüße",
    "日本語",
    "🔑",
    "100%",
    "a%20b",
    "a+b",
    "a#b",
    "a?b=c&d",
    "semi;colon",
    'quote"s',
    "it's",
    "back\\slash",
    "a:b@c",
    "a=b,c",
    "[x]{y}",
    "...",
    "~tilde.dot-dash_",
)
"""Names that a URL has its own ideas about, and two that it has none about."""

KINDS: dict[str, Step] = {
    "secrets": {"do": "secrets", **_QUESTION},
    "secrets with netrc": {"do": "secrets", **_QUESTION, "netrc": _NETRC},
    "secrets with a query": {"do": "secrets", "query": "?team=a%20b&x=%2F&y=+", **_QUESTION},
    "secrets under a base path": {"do": "secrets", "base": _BASE, **_QUESTION},
    "secrets under an encoded base path": {"do": "secrets", "base": "/b%C3%A4se/a%20b", **_QUESTION},
    "registries": {"do": "registries", **_QUESTION, "netrc": _NETRC},
    "a POST with an empty body": {"do": "empty"},
    "list": {"do": "list", "repo_id": 1},
    "list, with the digest of no body": {"do": "list", "repo_id": 1, "bodyless": "digest"},
    "list a page": {"do": "list", "repo_id": 1, "page": 2, "per_page": 50},
    "list under a base path": {"do": "list", "repo_id": 1, "base": _BASE},
    "create": {"do": "create", "repo_id": 1, "secret": _SECRET},
    "update": {"do": "update", "repo_id": 1, "name": "token", "secret": _SECRET},
    "update a name with a space": {"do": "update", "repo_id": 1, "name": "with space", "secret": {"value": "v"}},
    "delete": {"do": "delete", "repo_id": 1, "name": "token"},
    "delete, with the digest of no body": {"do": "delete", "repo_id": 1, "name": "token", "bodyless": "digest"},
    "delete a name with a percent sign": {"do": "delete", "repo_id": 1, "name": "100%"},
    **{f"find {name}": {"do": "find", "repo_id": 1, "name": name} for name in NAMES},
    **{
        f"find {name}, with the digest of no body": {"do": "find", "repo_id": 1, "name": name, "bodyless": "digest"}
        for name in NAMES[:2]
    },
}


async def record(binary: Path) -> dict[str, Any]:
    """Every kind of request, as it arrived."""
    with tempfile.TemporaryDirectory() as folder:
        key_file = Path(folder) / "key.pem"
        key_file.write_bytes(private_pem(KEY))
        report = await Peer(binary, key_file).run({"steps": list(KINDS.values())})
    arrived = report["recorded"]
    assert len(arrived) == len(KINDS), [outcome["error"] for outcome in report["outcomes"]]
    return {
        "about": "Requests signed by Woodpecker's signing library; recorded by tests/peers/record.py.",
        "signer": f"github.com/yaronf/httpsign {report['signer']}",
        "go": report["go"],
        "public_key": report["public_key"],
        "requests": [_vector(kind, request) for kind, request in zip(KINDS, arrived, strict=True)],
    }


def _vector(kind: str, request: dict[str, Any]) -> dict[str, Any]:
    headers = [[name, "127.0.0.1" if name == "Host" else value] for name, value in request["headers"]]  # no port
    created = re.search(r";created=(\d+);", dict(headers)["Signature-Input"])
    assert created is not None
    body: dict[str, Any] = {name: request[name] for name in ("body", "body_base64") if name in request}
    return {
        "kind": kind,
        "method": request["method"],
        "target": request["target"],
        "created": int(created[1]),
        "headers": headers,
        **body,
    }


async def main() -> None:
    """Build, record, write."""
    with tempfile.TemporaryDirectory() as folder:
        vectors = await record(await build(Path(folder)))
    VECTORS.write_text(json.dumps(vectors, indent=1, ensure_ascii=False) + "\n")
    print(f"{len(vectors['requests'])} requests, {vectors['signer']}, in {VECTORS}")  # noqa: T201 - a script's answer


if __name__ == "__main__":
    asyncio.run(main())
