"""The running service, asked by Woodpecker's own signer, with a real OpenBao behind it.

``peer`` is the Go program in ``woodpecker/``. Where it cannot be built, all of this is skipped, with the reason.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.peers.peer import Outcome, Peer, Step
from tests.peers.record import NAMES, VECTORS, record
from tests.servers import Admin, Client, Proxy, serving, settings
from woodpecker_vault.cli.openbao import OpenBao

MAX_BODY_BYTES = 16 * 1024 * 1024
MEGABYTE = 1_048_576
NETRC = {"machine": "forge.example", "login": "octocat", "password": "netrc-password", "type": "gitea"}


def asking(repo_id: int, *, do: str = "secrets", **pipeline: Any) -> Step:
    """A pipeline of this repository asks."""
    repo = {"id": repo_id, "forge_id": 1, "forge_remote_id": "4711", "owner": "acme", "name": "shop"}
    return {"do": do, "repo": repo, "pipeline": {"number": 12, "event": "push", "branch": "main", **pipeline}}


def secret(name: str, value: str = "sample-value", **fields: Any) -> dict[str, Any]:
    return {"name": name, "value": value, "images": [], "events": ["push"], **fields}


def create(repo_id: int, document: dict[str, Any] | None) -> Step:
    return {"do": "create", "repo_id": repo_id, "secret": document}


def update(repo_id: int, name: str, document: dict[str, Any]) -> Step:
    return {"do": "update", "repo_id": repo_id, "name": name, "secret": document}


def find(repo_id: int, name: str, **how: Any) -> Step:
    return {"do": "find", "repo_id": repo_id, "name": name, **how}


def delete(repo_id: int, name: str, **how: Any) -> Step:
    return {"do": "delete", "repo_id": repo_id, "name": name, **how}


def listing(repo_id: int, **how: Any) -> Step:
    return {"do": "list", "repo_id": repo_id, **how}


def path(repo_id: int, name: str) -> str:
    """Where the secret's entry is in Vault."""
    return f"woodpecker/repo/{repo_id}/{name}"


def assert_refused_once(outcome: Outcome, status: int) -> None:
    """Woodpecker got this status, and did not ask again."""
    assert (outcome.status, outcome.requests, outcome.got) == (status, 1, None)
    assert f'"status": {status}' in outcome.error  # the problem's document, as Woodpecker logs it


class TestAPipelinesSecrets:
    @pytest.mark.parametrize("how", [{"netrc": NETRC}, {}], ids=["with netrc", "without"])
    async def test_arrive_in_woodpeckers_types(self, peer: Peer, admin: Admin, repo_id: int, how: Step) -> None:
        await admin.put(
            path(repo_id, "token"), "t0ken <&> ünïcödé", events="push, tag", images="alpine, docker.io/a/b:1.2"
        )
        await admin.put(path(repo_id, "plain"), "multi\nline\n")
        [outcome] = await peer.ask({**asking(repo_id), **how})
        assert (outcome.status, outcome.error, outcome.requests) == (200, "", 1)
        plain, token = outcome.got
        assert token == {
            "id": 0,
            "org_id": 0,
            "repo_id": 0,
            "name": "token",
            "value": "t0ken <&> ünïcödé",
            "images": ["alpine", "docker.io/a/b:1.2"],
            "events": ["push", "tag"],
            "note": "",
        }
        assert (plain["name"], plain["value"], plain["images"]) == ("plain", "multi\nline\n", [])
        assert plain["events"] == ["push", "tag", "release", "deployment", "cron", "manual"]

    async def test_cost_one_request_when_there_are_none(self, peer: Peer, repo_id: int) -> None:
        [outcome] = await peer.ask(asking(repo_id))
        assert (outcome.status, outcome.got, outcome.requests) == (200, [], 1)

    async def test_are_withheld_from_a_pull_request_of_a_fork(self, peer: Peer, admin: Admin, repo_id: int) -> None:
        await admin.put(path(repo_id, "token"), "t0ken", events="push, pull_request")
        own, forked = await peer.ask(
            asking(repo_id, event="pull_request"), asking(repo_id, event="pull_request", from_fork=True)
        )
        assert [one["name"] for one in own.got] == ["token"]
        assert (forked.got, forked.requests) == ([], 1)

    async def test_arrive_for_a_body_of_sixteen_mebibytes_and_not_for_a_byte_more(
        self, peer: Peer, admin: Admin, repo_id: int
    ) -> None:
        await admin.put(path(repo_id, "token"), "t0ken")
        [small] = await peer.ask(asking(repo_id, message=""))
        room = MAX_BODY_BYTES - small.sent[0].bytes
        whole, over = await peer.ask(asking(repo_id, message="x" * room), asking(repo_id, message="x" * (room + 1)))
        assert whole.sent[0].bytes == MAX_BODY_BYTES
        assert (whole.status, whole.requests, len(whole.got)) == (200, 1, 1)
        assert_refused_once(over, 413)

    async def test_arrive_when_they_are_a_megabyte(self, peer: Peer, repo_id: int) -> None:
        value = "ü" * 500_000
        created, outcome = await peer.ask(create(repo_id, secret("large", value)), asking(repo_id))
        assert (created.status, created.requests) == (201, 1)
        assert [one["value"] for one in outcome.got] == [value]

    async def test_are_given_to_equal_requests_of_one_second_each(self, peer: Peer, admin: Admin, repo_id: int) -> None:
        await admin.put(path(repo_id, "token"), "t0ken")
        outcomes = await peer.ask(*[asking(repo_id)] * 20, at_once=True, same_second=True)
        assert len({outcome.sent[0].signature for outcome in outcomes}) == 1
        assert [(outcome.status, outcome.requests, len(outcome.got)) for outcome in outcomes] == [(200, 1, 1)] * 20

    async def test_are_given_at_an_endpoint_with_a_query(self, peer: Peer, repo_id: int) -> None:
        [outcome] = await peer.ask({**asking(repo_id), "query": "?team=a%20b&x=%2F&y=+"})
        assert (outcome.status, outcome.requests) == (200, 1)

    async def test_are_refused_to_an_empty_body_once(self, peer: Peer) -> None:
        """Chunked, as Go sends a body that turns out to be empty; its signature is fine."""
        [outcome] = await peer.ask({"do": "empty"})
        assert_refused_once(outcome, 400)

    async def test_are_refused_to_an_unknown_key_once(self, stranger: Peer, repo_id: int) -> None:
        [outcome] = await stranger.ask({**asking(repo_id), "netrc": NETRC})
        assert_refused_once(outcome, 401)
        assert "netrc-password" not in outcome.error


class TestRegistries:
    async def test_are_asked_for_once_and_not_served_yet(self, peer: Peer, repo_id: int) -> None:
        [outcome] = await peer.ask({**asking(repo_id, do="registries"), "netrc": NETRC})
        assert_refused_once(outcome, 404)


class TestAVaultThatIsDown:
    @pytest.fixture
    async def vault(self, bao: OpenBao) -> AsyncIterator[Proxy]:
        async with Proxy(bao.address).listening() as proxy:
            yield proxy

    @pytest.fixture
    async def peer(
        self, folder: Path, vault: Proxy, bao: OpenBao, key: Ed25519PrivateKey, peer_at: Callable[[str], Peer]
    ) -> AsyncIterator[Peer]:
        # With no retries of our own, which would only make it longer: three times what the service may take is known.
        document = settings(key, bao, vault={"address": vault.address, "timeout": 0.3, "max_retries": 0})
        async with serving(folder, document) as service:
            yield peer_at(service.url)

    @pytest.mark.parametrize("mode", ["refuse", "hang", "cut"])
    async def test_costs_three_requests_within_woodpeckers_patience(
        self, peer: Peer, vault: Proxy, repo_id: int, mode: str
    ) -> None:
        [before] = await peer.ask(asking(repo_id))
        assert before.status == 200
        vault.mode = mode
        vault.drop()
        asked, found = await peer.ask(asking(repo_id), find(repo_id, "token"), at_once=True)
        for outcome in (asked, found):
            assert [sent.status for sent in outcome.sent] == [503, 503, 503]
            assert (outcome.got, outcome.status) == (None, 503)
            assert outcome.seconds < 31  # three times 10 s, and two pauses: what Woodpecker allows
        vault.mode = "pass"
        [after] = await peer.ask(asking(repo_id))
        assert (after.status, after.requests) == (200, 1)


class TestAVaultThatDenies:
    @pytest.fixture
    async def peer(
        self, folder: Path, admin: Admin, bao: OpenBao, key: Ed25519PrivateKey, peer_at: Callable[[str], Peer]
    ) -> AsyncIterator[Peer]:
        token = await admin.token('path "secret/metadata/*" { capabilities = ["list"] }', name="peer-no-data")
        async with serving(folder, settings(key, bao, vault_auth={"token": token})) as service:
            yield peer_at(service.url)

    async def test_costs_one_request(self, peer: Peer, admin: Admin, repo_id: int) -> None:
        await admin.put(path(repo_id, "token"), "t0ken")
        outcomes = await peer.ask(asking(repo_id), find(repo_id, "token"), create(repo_id, secret("new")))
        for outcome in outcomes:
            assert_refused_once(outcome, 403)


class TestEveryOperationOfTheAlphaForm:
    @pytest.mark.parametrize("forms", [("digest", ""), ("", "digest")], ids=["find with digest", "delete with digest"])
    @pytest.mark.parametrize("name", NAMES)
    async def test_takes_any_name(
        self, peer: Peer, admin: Admin, repo_id: int, name: str, forms: tuple[str, str]
    ) -> None:
        """Find and delete differ in form, since within a second they would share a signature otherwise."""
        found_by, deleted_by = forms
        created, found, listed = await peer.ask(
            create(repo_id, secret(name, "one", images=["alpine"], events=["push", "tag"], note="nöte")),
            find(repo_id, name, bodyless=found_by),
            listing(repo_id),
        )
        assert [created.status, found.status, listed.status] == [201, 200, 200]
        assert found.got == {
            "id": created.got["id"],
            "org_id": 0,
            "repo_id": repo_id,
            "name": name,
            "value": "one",
            "images": ["alpine"],
            "events": ["push", "tag"],
            "note": "nöte",
        }
        assert created.got == found.got
        assert listed.got == [found.got]
        assert await admin.list(f"woodpecker/repo/{repo_id}") == [name]
        assert await admin.data(path(repo_id, name)) == {"value": "one"}
        assert await admin.metadata(path(repo_id, name)) == {
            "images": "alpine",
            "events": "push,tag",
            "note": "nöte",
        }

        [updated] = await peer.ask(update(repo_id, name, secret(name, "two", events=["cron"])))
        assert (updated.status, updated.got["value"], updated.got["events"]) == (200, "two", ["cron"])
        assert updated.got["id"] == created.got["id"]
        assert await admin.data(path(repo_id, name)) == {"value": "two"}
        assert (await admin.metadata(path(repo_id, name)) or {})["events"] == "cron"

        [deleted] = await peer.ask(delete(repo_id, name, bodyless=deleted_by))
        assert (deleted.status, deleted.error) == (204, "")
        assert await admin.data(path(repo_id, name)) is None
        [gone] = await peer.ask(listing(repo_id, bodyless="digest"))
        assert gone.got == []
        outcomes = [created, found, listed, updated, deleted, gone]
        assert [outcome.requests for outcome in outcomes] == [1] * len(outcomes)

    @pytest.mark.parametrize("name", ["a/b", ".", "..", "%C2%A0", "n" * 256])
    async def test_refuses_a_name_that_cannot_be_an_entry_once(self, peer: Peer, repo_id: int, name: str) -> None:
        outcomes = await peer.ask(
            create(repo_id, secret(name)),
            find(repo_id, name),
            update(repo_id, name, secret(name)),
            delete(repo_id, name, bodyless="digest"),
        )
        assert {(outcome.status, outcome.requests) for outcome in outcomes} == {(422, 1)}

    async def test_refuses_a_name_with_a_newline_once(self, peer: Peer, repo_id: int) -> None:
        """In a URL its decoded form could forge a line of what is signed, so there it is not even verified."""
        created, found = await peer.ask(create(repo_id, secret("a\nb")), find(repo_id, "a\nb"))
        assert_refused_once(created, 422)
        assert_refused_once(found, 401)


class TestList:
    async def test_gives_pages(self, peer: Peer, admin: Admin, repo_id: int) -> None:
        names = [f"secret_{number:02}" for number in range(7)]
        await asyncio.gather(*(admin.put(path(repo_id, name), name) for name in reversed(names)))
        outcomes = await peer.ask(
            listing(repo_id),
            listing(repo_id, page=1, per_page=3),
            listing(repo_id, page=2, per_page=3),
            listing(repo_id, page=3, per_page=3),
            listing(repo_id, page=4, per_page=3),
            listing(repo_id, page=1, per_page=50),
        )
        pages = [[one["name"] for one in outcome.got] for outcome in outcomes]
        assert pages == [names, names[:3], names[3:6], names[6:], [], names]
        assert {(outcome.status, outcome.requests) for outcome in outcomes} == {(200, 1)}

    async def test_is_an_empty_list_of_nothing(self, peer: Peer, repo_id: int) -> None:
        [outcome] = await peer.ask(listing(repo_id))
        assert (outcome.status, outcome.got, outcome.requests) == (200, [], 1)


class TestWrites:
    async def test_of_a_megabyte_arrive_in_vault(self, peer: Peer, admin: Admin, repo_id: int) -> None:
        [small] = await peer.ask(create(repo_id, secret("small", "")))
        value = "v" * (MEGABYTE - small.sent[0].bytes - len('"value":"",'))  # which an empty value leaves out
        created, updated = await peer.ask(
            create(repo_id, secret("large", value)),
            update(repo_id, "large", secret("large", value.replace("v", "w"))),
        )
        assert [outcome.sent[0].bytes for outcome in (created, updated)] == [MEGABYTE] * 2
        assert (created.status, created.got["value"] == value) == (201, True)
        assert (updated.status, await admin.data(path(repo_id, "large")) == {"value": value.replace("v", "w")}) == (
            200,
            True,
        )

    async def test_that_are_equal_within_a_second_are_done_once(self, peer: Peer, admin: Admin, repo_id: int) -> None:
        outcomes = await peer.ask(*[create(repo_id, secret("token"))] * 20, at_once=True, same_second=True)
        assert len({outcome.sent[0].signature for outcome in outcomes}) == 1
        assert [(outcome.status, outcome.requests) for outcome in outcomes] == [(201, 1)] * 20
        assert await admin.version(path(repo_id, "token")) == 1

    async def test_of_an_update_without_a_value_keep_it(self, peer: Peer, admin: Admin, repo_id: int) -> None:
        """Woodpecker leaves an empty value out, and sends everything else: ``null`` is an empty list."""
        await admin.put(path(repo_id, "token"), "t0ken", events="push", images="alpine", note="by hand")
        [outcome] = await peer.ask(
            update(repo_id, "token", {"name": "token", "images": None, "events": ["cron"], "note": "by Woodpecker"})
        )
        assert outcome.status == 200
        assert await admin.data(path(repo_id, "token")) == {"value": "t0ken"}
        assert await admin.metadata(path(repo_id, "token")) == {"events": "cron", "note": "by Woodpecker"}

    async def test_that_cannot_be_are_refused_once_each(self, peer: Peer, admin: Admin, repo_id: int) -> None:
        await admin.put(path(repo_id, "taken"), "t0ken")
        cases = [
            (create(0, secret("a")), 400),
            (create(repo_id, None), 400),
            (find(repo_id, "missing"), 404),
            (update(repo_id, "missing", secret("missing")), 404),
            (delete(repo_id, "missing", bodyless="digest"), 404),
            (create(repo_id, secret("taken")), 409),
            (create(repo_id, secret("a", "")), 422),
            (create(repo_id, secret("a", events=["pushed"])), 422),
            (create(repo_id, secret("a", images=["not an image"])), 422),
            (create(repo_id, secret("a", repo_id=repo_id + 1)), 422),
            (update(repo_id, "taken", secret("other")), 422),
        ]
        outcomes = await peer.ask(*(step for step, _ in cases))
        for outcome, (_, status) in zip(outcomes, cases, strict=True):
            assert_refused_once(outcome, status)


class TestWhatIsNotSigned:
    async def test_a_find_after_a_delete_within_a_second_is_refused(
        self, peer: Peer, admin: Admin, repo_id: int
    ) -> None:
        """By design: the two are one signature under two methods, and whoever saw one could send the other."""
        await admin.put(path(repo_id, "token"), "t0ken")
        deleted, found = await peer.ask(delete(repo_id, "token"), find(repo_id, "token"), same_second=True)
        assert deleted.sent[0].signature == found.sent[0].signature
        assert deleted.status == 204
        assert_refused_once(found, 401)

    async def test_a_delete_after_a_find_within_a_second_is_refused(
        self, peer: Peer, admin: Admin, repo_id: int
    ) -> None:
        await admin.put(path(repo_id, "token"), "t0ken")
        found, deleted = await peer.ask(find(repo_id, "token"), delete(repo_id, "token"), same_second=True)
        assert found.sent[0].signature == deleted.sent[0].signature
        assert found.got["value"] == "t0ken"
        assert_refused_once(deleted, 401)
        assert await admin.data(path(repo_id, "token")) == {"value": "t0ken"}

    async def test_a_find_that_was_caught_opens_no_other_secret_after_it_was_used(
        self, peer: Peer, client: Client, admin: Admin, repo_id: int
    ) -> None:
        """Woodpecker signs the decoded path: that of ``a%3Fb`` reads as ``a`` with the query ``b`` does."""
        await admin.put(path(repo_id, "a"), "t0ken")
        await admin.put(path(repo_id, "a?b"), "other")
        report = await replace(peer, server="").run({"steps": [find(repo_id, "a?b")]})
        caught = {name: value for name, value in report["recorded"][0]["headers"] if name.startswith("Signature")}
        genuine = await client.raw("GET", f"/repo/{repo_id}/secrets/a%3Fb", None, caught)
        bent = await client.raw("GET", f"/repo/{repo_id}/secrets/a?b", None, caught)
        assert (genuine.json["value"], bent.status) == ("other", 401)

    async def test_a_delete_in_another_second_than_a_find_is_done(self, peer: Peer, admin: Admin, repo_id: int) -> None:
        await admin.put(path(repo_id, "token"), "t0ken")
        [found] = await peer.ask(find(repo_id, "token"))
        [deleted] = await peer.ask(delete(repo_id, "token"))
        while deleted.sent[0].signature_input == found.sent[0].signature_input:
            [deleted] = await peer.ask(delete(repo_id, "token"))
        assert (deleted.status, deleted.requests) == (204, 1)


class TestABasePath:
    @pytest.fixture
    async def peer(
        self, folder: Path, bao: OpenBao, key: Ed25519PrivateKey, peer_at: Callable[[str], Peer]
    ) -> AsyncIterator[Peer]:
        document = settings(key, bao)
        document["server"]["base_path"] = "/b/s3cr3t"
        async with serving(folder, document) as service:
            yield peer_at(service.url.removesuffix("/b/s3cr3t"))

    async def test_is_signed_with_the_rest(self, peer: Peer, admin: Admin, repo_id: int) -> None:
        await admin.put(path(repo_id, "with space"), "t0ken")
        asked, found, elsewhere = await peer.ask(
            {**asking(repo_id), "base": "/b/s3cr3t"},
            find(repo_id, "with space", base="/b/s3cr3t"),
            asking(repo_id),
        )
        assert [one["value"] for one in asked.got] == ["t0ken"]
        assert found.got["value"] == "t0ken"
        assert_refused_once(elsewhere, 404)


class TestTheSigner:
    async def test_set_up_as_woodpeckers_signs_nothing_that_has_no_body(self, peer: Peer, repo_id: int) -> None:
        """So a GET comes with the digest of nothing, or from a client that signs the target alone; both are tried."""
        [outcome] = await peer.ask(find(repo_id, "token", bodyless="nil"))
        assert (outcome.status, outcome.requests) == (0, 0)
        assert "header content-digest not found" in outcome.error

    async def test_signs_today_what_is_recorded(self, peer_binary: Path) -> None:
        """All but the times, and the signatures with them."""

        def timeless(vectors: dict[str, Any]) -> list[Any]:
            return [
                (
                    request["method"],
                    request["target"],
                    request.get("body"),
                    [
                        (name, re.sub(r"created=\d+", "", value))
                        for name, value in request["headers"]
                        if name != "Signature"
                    ],
                )
                for request in vectors["requests"]
            ]

        assert timeless(await record(peer_binary)) == timeless(json.loads(VECTORS.read_text()))
