"""Vault's audit log beside ours, and the bounds of a token: what README says of both, on a real OpenBao."""

import json
import os
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.cli import run
from tests.servers import Admin, Client, pipeline_body, serving, settings
from tests.test_documents import README, blocks
from tests.vault.raft import raft
from woodpecker_vault import __version__
from woodpecker_vault.cli.openbao import OpenBao


async def typed(word: str, server: OpenBao, home: Path, **instead: str) -> None:
    """Type the README's commands that have this in them, with some words replaced."""
    (commands,) = [block for block in blocks(README, "sh") if word in block]
    for old, new in instead.items():
        commands = re.sub(rf"(?<={old}=)\S+", new, commands)
    await at_a_shell(commands, server, home)


async def at_a_shell(commands: str, server: OpenBao, home: Path) -> None:
    environment = {
        "BAO_ADDR": server.address,
        "BAO_TOKEN": server.token,
        "HOME": str(home),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    finished = await run("/bin/sh", "-ec", commands, environment=environment)
    assert finished.code == 0, finished.err


@pytest.fixture(scope="module")
def audit_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("audit") / "audit.log"


@pytest.fixture(scope="module")
async def audited(
    tmp_path_factory: pytest.TempPathFactory, session: aiohttp.ClientSession, audit_log: Path
) -> AsyncIterator[OpenBao]:
    """An OpenBao that writes an audit log, with the headers that README names."""
    home = tmp_path_factory.mktemp("audited")
    device = f'audit "file" "to-file" {{\noptions = {{ file_path = {json.dumps(str(audit_log))} }}\n}}\n'
    async with raft(home, session, device) as node:
        await typed("request-headers", node.server, home)
        yield node.server


def text_of(log: Path) -> str:
    return log.read_text()


def requests_in(log: Path, request_id: str) -> list[dict[str, Any]]:
    """What the audit log says of requests to Vault that were made for one of ours."""
    entries = [json.loads(line) for line in text_of(log).splitlines()]
    requests = [entry["request"] for entry in entries if entry["type"] == "request"]
    return [one for one in requests if one.get("headers", {}).get("x-request-id") == [request_id]]


async def test_each_request_to_vault_says_for_whom_it_is(
    audited: OpenBao,
    audit_log: Path,
    session: aiohttp.ClientSession,
    key: Ed25519PrivateKey,
    folder: Path,
) -> None:
    admin = Admin(audited, session)
    await admin.put("woodpecker/repo/7/token", "sesame")
    async with serving(folder, settings(key, audited)) as service:
        client = Client(session, service.url, key)
        repo = {"id": 7, "owner": "acme", "name": "widgets", "full_name": "acme/widgets"}
        reply = await client.send("POST", "/secrets", pipeline_body(repo, number=17, branch="ключ main"))
        assert [secret["name"] for secret in reply.json["secrets"]] == ["token"]
        listed = await client.send("GET", "/repo/7/secrets")
        assert listed.status == 200
    request_id = reply.headers["X-Request-Id"]
    assert (await service.logged(request_id))["repository"] == "acme/widgets"
    found = requests_in(audit_log, request_id)
    assert {(one["operation"], one["path"]) for one in found} >= {
        ("list", "secret/metadata/woodpecker/repo/7/"),
        ("read", "secret/data/woodpecker/repo/7/token"),
    }
    for one in found:
        assert one["headers"]["x-woodpecker-pipeline"] == ["acme/widgets#17 push %D0%BA%D0%BB%D1%8E%D1%87%20main"]
        assert one["headers"]["user-agent"] == [f"woodpecker-vault/{__version__}"]
    others = requests_in(audit_log, listed.headers["X-Request-Id"])
    assert others
    assert not any("x-woodpecker-pipeline" in one["headers"] for one in others)
    assert "sesame" not in text_of(audit_log)


async def test_the_service_works_within_all_bounds_of_a_token(
    bao: OpenBao, admin: Admin, key: Ed25519PrivateKey, folder: Path, repo_id: int
) -> None:
    await admin.put(f"woodpecker/repo/{repo_id}/token", "x")
    (policy,) = blocks(README, "hcl")
    await admin.call("PUT", "sys/policies/acl/woodpecker-vault", {"policy": policy})
    await admin.call("POST", "sys/auth/approle", {"type": "approle"})
    try:
        here = {"token_bound_cidrs": "127.0.0.1/32", "secret_id_bound_cidrs": "127.0.0.1/32", "token_num_uses": "40"}
        await typed("token_bound_cidrs", bao, folder, **here)
        _, role_id = await admin.call("GET", "auth/approle/role/woodpecker-vault/role-id")
        _, secret_id = await admin.call("POST", "auth/approle/role/woodpecker-vault/secret-id")
        document = settings(key, bao)
        document["vault.auth"] = {
            "method": "approle",
            "role_id": role_id["data"]["role_id"],
            "secret_id": secret_id["data"]["secret_id"],
        }
        async with serving(folder, document) as service:
            client = Client(admin.session, service.url, key)
            for _ in range(30):  # more uses than a token has
                assert set(await client.secrets(repo={"id": repo_id})) == {"token"}
            await at_a_shell("bao lease revoke -prefix auth/approle/login", bao, folder)
            assert set(await client.secrets(repo={"id": repo_id})) == {"token"}
    finally:
        await admin.call("DELETE", "sys/auth/approle")
        await admin.call("DELETE", "sys/policies/acl/woodpecker-vault")


async def test_from_elsewhere_a_bound_token_is_worth_nothing(bao: OpenBao, admin: Admin) -> None:
    role = {"token_bound_cidrs": ["192.0.2.0/24"], "allowed_policies": ["default"]}
    await admin.call("POST", "auth/token/roles/audit-elsewhere", role)
    _, made = await admin.call("POST", "auth/token/create/audit-elsewhere", {"policies": ["default"]})
    thief = Admin(OpenBao(bao.address, made["auth"]["client_token"]), admin.session)
    assert (await thief.call("GET", "auth/token/lookup-self"))[0] == 403
