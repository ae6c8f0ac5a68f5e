"""What Woodpecker gets, as a Vault admin would arrange it, and what Vault has after Woodpecker wrote."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typing_extensions import override

from tests.servers import Admin, Client, Reply, Service, pipeline_body, serving, settings
from woodpecker_vault.cli.openbao import OpenBao
from woodpecker_vault.cli.stand_in import signed_headers

DEFAULT_EVENTS = ["push", "tag", "release", "deployment", "cron", "manual"]
PULL_REQUESTS = ["pull_request", "pull_request_closed", "pull_request_metadata"]
MANY_IMAGES = [f"registry.example:5000/team/plugin-{number:02}:1.{number}" for number in range(40)]


def in_chunks(items: list[str], size: int) -> list[str]:
    """Comma-separated lists of so many items each, as an admin would continue them."""
    return [",".join(items[start : start + size]) for start in range(0, len(items), size)]


@dataclass(frozen=True, slots=True)
class Repository:
    """One repository: its folder in Vault and its URL of the alpha form."""

    id: int
    client: Client
    admin: Admin

    @property
    def folder(self) -> str:
        """Where its entries are."""
        return f"woodpecker/repo/{self.id}"

    @property
    def url(self) -> str:
        """The path of its list."""
        return f"/repo/{self.id}/secrets"

    async def put(self, name: str, data: Mapping[str, Any] | str, **metadata: str) -> None:
        """A Vault admin writes an entry."""
        await self.admin.put(f"{self.folder}/{name}", data, **metadata)

    async def data(self, name: str) -> dict[str, Any] | None:
        """A Vault admin reads an entry."""
        return await self.admin.data(f"{self.folder}/{name}")

    async def metadata(self, name: str) -> dict[str, str] | None:
        """A Vault admin reads an entry's custom metadata."""
        return await self.admin.metadata(f"{self.folder}/{name}")

    async def version(self, name: str) -> int:
        """A Vault admin looks how often an entry was written."""
        return await self.admin.version(f"{self.folder}/{name}")

    async def keys(self) -> list[str]:
        """A Vault admin lists the folder."""
        return await self.admin.list(self.folder)

    async def given(self, org_id: int = 0, **pipeline: Any) -> dict[str, Any]:
        """What a pipeline gets."""
        return await self.client.secrets(repo={"id": self.id, "org_id": org_id}, **pipeline)

    async def withheld(self, **pipeline: Any) -> Reply:
        """The released form's whole answer."""
        return await self.client.send("POST", "/secrets", pipeline_body({"id": self.id, "org_id": 0}, **pipeline))

    async def create(self, name: str, value: str = "value", **rest: Any) -> Reply:
        """``POST``."""
        return await self.client.send("POST", self.url, {"name": name, "value": value, "events": ["push"], **rest})

    async def read(self, name: str) -> Reply:
        """``GET`` one."""
        return await self.client.send("GET", f"{self.url}/{quote(name, safe='')}")

    async def update(self, name: str, /, **document: Any) -> Reply:
        """``PUT``."""
        return await self.client.send("PUT", f"{self.url}/{quote(name, safe='')}", document)

    async def delete(self, name: str) -> Reply:
        """``DELETE``."""
        return await self.client.send("DELETE", f"{self.url}/{quote(name, safe='')}")

    async def listed(self, query: str = "") -> list[dict[str, Any]]:
        """``GET`` all."""
        reply = await self.client.send("GET", self.url + query)
        assert reply.status == 200, reply.body
        secrets: list[dict[str, Any]] = reply.json
        return secrets


@pytest.fixture
def repo(repo_id: int, client: Client, admin: Admin) -> Repository:
    """A repository that no other test uses."""
    return Repository(repo_id, client, admin)


@pytest.fixture
def another_repo(org_id: int, client: Client, admin: Admin) -> Repository:
    """A second one."""
    return Repository(org_id, client, admin)


@pytest.fixture
def prefix() -> str:
    """For names in the global layer, which every repository of every test sees."""
    return f"g{uuid.uuid4().hex[:12]}"


@pytest.fixture(autouse=True)
async def empty_global_layer(request: pytest.FixtureRequest) -> AsyncIterator[None]:
    """What a test puts into the global layer is gone after it: other tests would see it."""
    yield
    if "prefix" in request.fixturenames:
        admin: Admin = request.getfixturevalue("admin")
        for name in await admin.list("woodpecker/global/"):
            await admin.call("DELETE", f"secret/metadata/woodpecker/global/{quote(name)}")


@pytest.fixture(scope="module")
async def custom_client(
    tmp_path_factory: pytest.TempPathFactory, bao: OpenBao, key: Ed25519PrivateKey, session: aiohttp.ClientSession
) -> AsyncIterator[Client]:
    """A Woodpecker at a service on which every setting of ``[secrets]`` is another than the default."""
    secrets = {
        "layers": [
            "layers/ci/shared",
            "layers/owner/{owner}/{repo}/",
            "layers/forge/{forge_id}/{forge_remote_id}/",
            "layers/event/{event}/",
            "layers/branch/{branch}/",
            "layers/one/x-{repo_id}",
            "layers/home/{repo_id}/ci/",
        ],
        "repo": "layers/home/{repo_id}/ci/",
        "default_events": ["manual", "pull_request"],
        "forks": "allow",
        "delete": "destroy",
    }
    async with serving(tmp_path_factory.mktemp("custom"), settings(key, bao, secrets=secrets)) as service:
        yield Client(session, service.url, key)


@dataclass(frozen=True, slots=True)
class CustomRepository(Repository):
    """A repository at the service with other settings."""

    @property
    @override
    def folder(self) -> str:
        return f"layers/home/{self.id}/ci"


@pytest.fixture
def custom(repo_id: int, custom_client: Client, admin: Admin) -> CustomRepository:
    """A repository at the service with other settings."""
    return CustomRepository(repo_id, custom_client, admin)


def assert_refused(reply: Reply, status: int, detail: str = "") -> None:
    """The answer is this error, and says so."""
    assert (reply.status, reply.headers["Content-Type"]) == (status, "application/problem+json"), reply.body
    assert detail in reply.json["detail"], reply.json["detail"]


class TestCreating:
    async def test_writes_the_value_as_data_and_the_restrictions_as_custom_metadata(self, repo: Repository) -> None:
        reply = await repo.create("token", "hunter2", events=["push", "tag"], images=["alpine", "b:1"], note="a note")
        assert reply.status == 201
        assert reply.json == {
            "id": reply.json["id"],
            "org_id": 0,
            "repo_id": repo.id,
            "name": "token",
            "value": "hunter2",
            "images": ["alpine", "b:1"],
            "events": ["push", "tag"],
            "note": "a note",
        }
        assert await repo.data("token") == {"value": "hunter2"}
        assert await repo.metadata("token") == {"events": "push,tag", "images": "alpine,b:1", "note": "a note"}
        assert await repo.version("token") == 1
        assert await repo.keys() == ["token"]

    async def test_shows_in_every_answer_that_follows(self, repo: Repository) -> None:
        created = await repo.create("token", "hunter2", events=["push"], images=["alpine"])
        assert (await repo.read("token")).json == created.json
        assert await repo.listed() == [created.json]
        assert (await repo.given())["token"] == {
            "name": "token",
            "value": "hunter2",
            "images": ["alpine"],
            "events": ["push"],
        }

    async def test_without_events_is_for_the_default_ones(self, repo: Repository) -> None:
        given: dict[str, dict[str, Any]] = {"absent": {}, "null": {"events": None}, "empty": {"events": []}}
        for name, events in given.items():
            document = {"name": name, "value": "value", **events}
            reply = await repo.client.send("POST", repo.url, document)
            assert (reply.status, reply.json["events"]) == (201, DEFAULT_EVENTS), name
            assert await repo.metadata(name) == {}
            assert (await repo.read(name)).json == reply.json

    async def test_ignores_what_woodpecker_sends_besides(self, repo: Repository) -> None:
        reply = await repo.create("token", id=99, org_id=0, repo_id=repo.id, type=1, plugins_only=True)
        assert reply.status == 201
        assert await repo.data("token") == {"value": "value"}

    async def test_drops_repeats(self, repo: Repository) -> None:
        reply = await repo.create("token", events=["tag", "push", "tag"], images=["b", "a", "b"])
        assert (reply.json["events"], reply.json["images"]) == (["tag", "push"], ["b", "a"])
        assert await repo.metadata("token") == {"events": "tag,push", "images": "b,a"}

    async def test_continues_images_that_do_not_fit_into_one_value(self, repo: Repository) -> None:
        assert (await repo.create("token", images=MANY_IMAGES)).status == 201
        metadata = await repo.metadata("token") or {}
        assert metadata.keys() == {"events", "images", "images.2", "images.3", "images.4"}
        assert all(len(value.encode()) <= 512 for value in metadata.values())
        assert ",".join(value for key, value in sorted(metadata.items()) if key != "events").split(",") == MANY_IMAGES
        assert (await repo.read("token")).json["images"] == MANY_IMAGES

    @pytest.mark.parametrize(
        "note",
        ["a\nb", "tab\there", "ends with a line break\n", '"quoted"', '"', "é" * 400, "x" * 512, "x" * 513,
         "🔑\n" * 500, "\\n", "[1]", " spaces ", "nb\u00a0sp", "null", "\u202eright to left"],
        ids=lambda note: repr(note[:20]),
    )  # fmt: skip
    async def test_keeps_a_note_as_it_is(self, note: str, repo: Repository) -> None:
        assert (await repo.create("token", note=note)).json["note"] == note
        assert (await repo.read("token")).json["note"] == note
        assert all(0 < len(value.encode()) <= 512 for value in (await repo.metadata("token") or {}).values())
        assert (await repo.update("token", note="short")).json["note"] == "short"
        assert await repo.metadata("token") == {"events": "push", "note": "short"}

    @pytest.mark.parametrize("value", ["a\nb\n", "\x00", " ", "é🔑", "x" * 900_000, '{"a": 1}', "null", "\u2028"])
    async def test_keeps_a_value_as_it_is(self, value: str, repo: Repository) -> None:
        assert (await repo.create("token", value)).json["value"] == value
        assert await repo.data("token") == {"value": value}
        assert (await repo.given())["token"]["value"] == value

    async def test_a_name_that_is_taken_is_409(self, repo: Repository) -> None:
        await repo.put("token", "of the admin")
        assert_refused(await repo.create("token"), 409, "exists already")
        assert (await repo.data("token"), await repo.version("token")) == ({"value": "of the admin"}, 1)
        assert await repo.metadata("token") == {}

    @pytest.mark.parametrize("value", ["", 0, False, {}, []])
    async def test_a_name_that_is_taken_by_an_odd_value_is_409(self, value: object, repo: Repository) -> None:
        await repo.put("token", {"value": value})
        assert_refused(await repo.create("token"), 409)
        assert await repo.data("token") == {"value": value}

    async def test_at_the_same_time_is_done_once(self, repo: Repository) -> None:
        replies = await asyncio.gather(*(repo.create("token", f"value {number}") for number in range(6)))
        assert sorted(reply.status for reply in replies) == [201, 409, 409, 409, 409, 409]
        winner = next(reply for reply in replies if reply.status == 201)
        assert await repo.data("token") == {"value": winner.json["value"]}
        assert await repo.version("token") == 1

    @pytest.mark.parametrize(
        ("document", "detail"),
        [
            ({"value": "x"}, "name must be one path segment"),
            ({"name": "", "value": "x"}, "name must be one path segment"),
            ({"name": None, "value": "x"}, "name must be one path segment"),
            ({"name": "token"}, "needs a value"),
            ({"name": "token", "value": ""}, "needs a value"),
            ({"name": "token", "value": None}, "needs a value"),
            ({"name": "token", "value": "x", "events": ["pushed"]}, 'Unknown event "pushed"'),
            ({"name": "token", "value": "x", "events": ["push", "Push"]}, 'Unknown event "Push"'),
            ({"name": "token", "value": "x", "events": [""]}, 'Unknown event ""'),
            ({"name": "token", "value": "x", "events": ["none"]}, "Unknown event"),
            ({"name": "token", "value": "x", "events": ["push,tag"]}, "Unknown event"),
            ({"name": "token", "value": "x", "events": ["*"]}, "Unknown event"),
            ({"name": "token", "value": "x", "images": [""]}, "is no image"),
            ({"name": "token", "value": "x", "images": ["a b"]}, "is no image"),
            ({"name": "token", "value": "x", "images": ["a,b"]}, "is no image"),
            ({"name": "token", "value": "x", "images": ["a", "alpine:"]}, "is no image"),
            ({"name": "token", "value": "x", "images": ["https://x/a"]}, "is no image"),
            ({"name": "token", "value": "x", "images": ["a\n"]}, "is no image"),
            ({"name": "token", "value": "x", "images": ["/a"]}, "is no image"),
            ({"name": "token", "value": "x", "images": ["a@sha256:12"]}, "is no image"),
            ({"name": "token", "value": "x", "images": ["älpine"]}, "is no image"),
            ({"name": "token", "value": "x", "images": ["a" * 513]}, "longer than the 512 bytes"),
            ({"name": "token", "value": "x", "images": [f"{n:03}{'a' * 400}" for n in range(65)]}, "do not fit"),
            ({"name": "token", "value": "x", "note": "n" * 512 * 64}, "do not fit"),
            ({"name": "token", "value": "x", "repo_id": 1}, "another repository"),
            ({"name": "token", "value": "x", "repo_id": -1}, "another repository"),
            ({"name": "token", "value": "x", "org_id": 7}, "another repository or organization"),
        ],
        ids=lambda value: str(value)[:60],
    )
    async def test_what_woodpecker_would_refuse_is_422(
        self, document: Mapping[str, Any], detail: str, repo: Repository
    ) -> None:
        document = {"events": ["push"], **document}
        assert_refused(await repo.client.send("POST", repo.url, document), 422, detail)
        assert await repo.keys() == []

    @pytest.mark.parametrize(
        "image",
        ["alpine", "alpine:3.20", "a/b", "host:5000/a/b:1", "host.example/a", "a_b-c.d", "a:b@sha256:" + "0" * 64],
    )
    async def test_an_image_as_docker_has_them_is_fine(self, image: str, repo: Repository) -> None:
        assert (await repo.create("token", images=[image])).json["images"] == [image]


class TestCreatingWhatWasThereBefore:
    async def test_after_a_soft_delete_makes_a_new_version(self, repo: Repository) -> None:
        assert (await repo.create("token", "one", images=["alpine"], note="old")).status == 201
        assert (await repo.delete("token")).status == 204
        reply = await repo.create("token", "two", events=["tag"])
        assert (reply.status, reply.json["images"], reply.json["note"]) == (201, [], "")
        assert (await repo.data("token"), await repo.version("token")) == ({"value": "two"}, 2)
        assert await repo.metadata("token") == {"events": "tag"}

    async def test_after_an_admin_destroyed_it(self, repo: Repository) -> None:
        await repo.put("token", {"value": "one", "more": "x"}, branches="main")
        await repo.admin.destroy(f"{repo.folder}/token", 1)
        assert (await repo.create("token", "two")).status == 201
        assert await repo.data("token") == {"value": "two"}
        assert await repo.metadata("token") == {"branches": "main", "events": "push"}

    async def test_after_an_admin_made_metadata_alone(self, repo: Repository) -> None:
        await repo.admin.set_metadata(f"{repo.folder}/token", {"branches": "main", "owner": "ops", "events": "tag"})
        assert (await repo.read("token")).status == 404
        reply = await repo.create("token", "one", events=["push"])
        assert (reply.status, reply.json["events"]) == (201, ["push"])
        assert await repo.metadata("token") == {"branches": "main", "owner": "ops", "events": "push"}
        assert await repo.version("token") == 1
        assert "token" in await repo.given(branch="main")
        assert "token" not in await repo.given(branch="other")

    @pytest.mark.parametrize("forks", ["allow", " Allow "])
    async def test_keeps_the_branches_but_not_the_permission_for_forks(self, forks: str, repo: Repository) -> None:
        await repo.put("token", "one", forks=forks, branches="main", owner="ops")
        assert (await repo.delete("token")).status == 204
        assert (await repo.create("token", "two")).status == 201
        assert await repo.metadata("token") == {"branches": "main", "owner": "ops", "events": "push"}
        assert "token" not in await repo.given(from_fork=True)
        assert "token" in await repo.given()

    async def test_keeps_that_forks_are_denied(self, custom: CustomRepository) -> None:
        await custom.put("token", "one", forks="deny")
        await custom.admin.delete(f"{custom.folder}/token")
        assert (await custom.create("token", "two", events=["push"])).status == 201
        assert await custom.metadata("token") == {"forks": "deny", "events": "push"}
        assert "token" not in await custom.given(from_fork=True)

    async def test_where_the_entry_holds_null(self, repo: Repository) -> None:
        await repo.put("token", {"value": None})
        assert (await repo.create("token", "one")).status == 201
        assert (await repo.data("token"), await repo.version("token")) == ({"value": "one"}, 2)

    async def test_removes_the_continuation_of_the_old_images(self, repo: Repository) -> None:
        assert (await repo.create("token", images=MANY_IMAGES, note="n" * 600)).status == 201
        assert (await repo.delete("token")).status == 204
        assert (await repo.create("token", images=["alpine"])).json["images"] == ["alpine"]
        assert await repo.metadata("token") == {"events": "push", "images": "alpine"}


class TestReadingOne:
    async def test_that_an_admin_made(self, repo: Repository) -> None:
        await repo.put("token", {"value": "one", "more": "ignored"}, events=" push , tag,,", images='["a", " b:1 "]')
        reply = await repo.read("token")
        assert reply.status == 200
        assert reply.json["value"] == "one"
        assert reply.json["events"] == ["push", "tag"]
        assert reply.json["images"] == ["a", "b:1"]

    async def test_that_is_not_there_is_404(self, repo: Repository, another_repo: Repository) -> None:
        await another_repo.put("token", "of another repository")
        await repo.put("deleted", "x")
        await repo.admin.delete(f"{repo.folder}/deleted")
        await repo.put("destroyed", "x")
        await repo.admin.destroy(f"{repo.folder}/destroyed", 1)
        await repo.put("nothing", {})
        await repo.put("null", {"value": None})
        await repo.admin.set_metadata(f"{repo.folder}/unborn", {"events": "push"})
        await repo.put("folder/inside", "x")
        for name in ("token", "deleted", "destroyed", "nothing", "null", "unborn", "folder", "inside", "a_b"):
            assert_refused(await repo.read(name), 404, "no such secret")
            assert_refused(await repo.update(name, value="x"), 404, "no such secret")
            assert_refused(await repo.client.send("DELETE", f"{repo.url}/{name}", age=2), 404, "no such secret")

    @pytest.mark.parametrize(
        "metadata",
        [{"events": "["}, {"events": "[1]"}, {"images": '["a"'}, {"branches": "[null]"}, {"forks": "maybe"}],
        ids=str,
    )
    async def test_whose_restrictions_cannot_be_read_is_422(self, metadata: dict[str, str], repo: Repository) -> None:
        await repo.put("token", "hidden-value", **metadata)
        reply = await repo.read("token")
        assert_refused(reply, 422, next(iter(metadata)))
        assert b"hidden-value" not in reply.body
        assert await repo.listed() == []

    async def test_shows_an_admins_change_at_once(self, repo: Repository) -> None:
        for number in range(3):
            await repo.put("token", f"value {number}", events=["push", "tag", "cron"][number])
            reply = await repo.read("token")
            assert (reply.json["value"], reply.json["events"]) == (f"value {number}", [["push", "tag", "cron"][number]])
        await repo.admin.delete(f"{repo.folder}/token")
        assert (await repo.client.send("GET", f"{repo.url}/token", age=3)).status == 404


class TestIds:
    async def test_are_numbers_that_javascript_can_hold_and_differ(
        self, repo: Repository, another_repo: Repository
    ) -> None:
        names = ["token", "Token", "tokens", "é", "1"]
        for one in (repo, another_repo):
            await asyncio.gather(*(one.put(name, "x") for name in names))
        ids = [secret["id"] for one in (repo, another_repo) for secret in await one.listed()]
        assert len(set(ids)) == 10
        assert all(type(number) is int and 0 < number < 2**53 for number in ids)

    async def test_stay_the_same(self, repo: Repository) -> None:
        ids = {(await repo.create("token")).json["id"], (await repo.read("token")).json["id"]}
        ids.add((await repo.update("token", value="other", note="x")).json["id"])
        await repo.delete("token")
        ids.add((await repo.create("token", "again")).json["id"])
        ids.add((await repo.listed())[0]["id"])
        assert len(ids) == 1


class TestListing:
    async def test_nothing_is_an_empty_array(self, repo: Repository) -> None:
        assert await repo.listed() == []
        assert await repo.listed("?page=3&perPage=5") == []

    async def test_is_sorted_by_name(self, repo: Repository) -> None:
        names = ["b", "a", "B", "_", "ä", "a-b", "a.b", "10", "9", "z"]
        await asyncio.gather(*(repo.put(name, "x") for name in names))
        assert [secret["name"] for secret in await repo.listed()] == sorted(names)

    async def test_has_only_the_repositorys_own(
        self, repo: Repository, another_repo: Repository, admin: Admin, prefix: str
    ) -> None:
        await admin.put(f"woodpecker/global/{prefix}", "x")
        await another_repo.put("foreign", "x")
        await repo.put("own", "x")
        await repo.put("folder/inside", "x")
        await repo.put("deleted", "x")
        await admin.delete(f"{repo.folder}/deleted")
        await admin.set_metadata(f"{repo.folder}/unborn", {"events": "push"})
        assert [secret["name"] for secret in await repo.listed()] == ["own"]

    @pytest.mark.parametrize(
        ("query", "expected"),
        [
            ("", range(7)),
            ("?page=0", range(7)),
            ("?perPage=0", range(7)),
            ("?page=0&perPage=0", range(7)),
            ("?page=1&perPage=3", range(3)),
            ("?page=2&perPage=3", range(3, 6)),
            ("?page=3&perPage=3", range(6, 7)),
            ("?page=4&perPage=3", range(0)),
            ("?page=1&perPage=7", range(7)),
            ("?page=2&perPage=7", range(0)),
            ("?page=1&perPage=999999999", range(7)),
            ("?page=999999999&perPage=999999999", range(0)),
            ("?perPage=2", range(2)),
            ("?page=0&perPage=2", range(2)),
            ("?page=1", range(7)),
            ("?page=2", range(0)),
            ("?perPage=2&page=2", range(2, 4)),
            ("?page=2&perPage=2&more=1", range(2, 4)),
            ("?page=%32&perPage=02", range(2, 4)),
        ],
    )
    async def test_has_pages(self, query: str, expected: range, repo: Repository) -> None:
        await asyncio.gather(*(repo.put(f"s{number}", "x") for number in range(7)))
        assert [secret["name"] for secret in await repo.listed(query)] == [f"s{number}" for number in expected]

    async def test_of_fifty_is_woodpeckers_own_page(self, repo: Repository) -> None:
        await asyncio.gather(*(repo.put(f"s{number:02}", "x") for number in range(60)))
        assert len(await repo.listed()) == 60
        assert [len(await repo.listed(f"?page={page}")) for page in (1, 2, 3)] == [50, 10, 0]


class TestUpdating:
    async def test_writes_a_new_version_and_changes_metadata(self, repo: Repository) -> None:
        await repo.create("token", "one", events=["push"], images=["alpine"], note="old")
        reply = await repo.update("token", value="two", events=["tag"], images=["debian"], note="new")
        assert reply.status == 200
        assert await repo.data("token") == {"value": "two"}
        assert await repo.metadata("token") == {"events": "tag", "images": "debian", "note": "new"}
        assert await repo.version("token") == 2
        assert (await repo.read("token")).json == reply.json

    @pytest.mark.parametrize("value", [{}, {"value": ""}, {"value": None}], ids=str)
    async def test_leaves_a_value_that_is_absent_or_empty(self, value: dict[str, Any], repo: Repository) -> None:
        await repo.create("token", "one", events=["push"])
        reply = await repo.update("token", events=["tag"], **value)
        assert (reply.status, reply.json["value"], reply.json["events"]) == (200, "one", ["tag"])
        assert (await repo.data("token"), await repo.version("token")) == ({"value": "one"}, 1)

    async def test_leaves_what_is_absent(self, repo: Repository) -> None:
        await repo.create("token", "one", events=["push"], images=["alpine"], note="note")
        before = await repo.metadata("token")
        reply = await repo.update("token", value="two")
        assert (reply.json["events"], reply.json["images"], reply.json["note"]) == (["push"], ["alpine"], "note")
        assert await repo.metadata("token") == before

    @pytest.mark.parametrize("nothing", [None, []])
    async def test_takes_away_what_is_null_or_empty(self, nothing: object, repo: Repository) -> None:
        await repo.create("token", "one", events=["push"], images=MANY_IMAGES, note="note" * 300)
        reply = await repo.update("token", events=nothing, images=nothing, note="" if nothing == [] else None)
        assert (reply.json["events"], reply.json["images"], reply.json["note"]) == (DEFAULT_EVENTS, [], "")
        assert (reply.json["value"], await repo.metadata("token")) == ("one", {})

    async def test_with_nothing_at_all_changes_nothing(self, repo: Repository) -> None:
        created = await repo.create("token", "one", images=["alpine"])
        reply = await repo.update("token")
        assert (reply.status, reply.json) == (200, created.json)
        assert await repo.version("token") == 1

    async def test_with_what_it_is_already_makes_no_version(self, repo: Repository) -> None:
        created = await repo.create("token", "one", events=["push"], images=["alpine"], note="n")
        reply = await repo.update("token", value="one", events=["push"], images=["alpine"], note="n")
        assert (reply.status, reply.json) == (200, created.json)
        assert await repo.version("token") == 1

    async def test_removes_continuations_that_are_no_longer_needed(self, repo: Repository) -> None:
        await repo.create("token", images=MANY_IMAGES, note="n" * 1200)
        reply = await repo.update("token", images=MANY_IMAGES[:20], note="n" * 600)
        assert reply.json["images"] == MANY_IMAGES[:20]
        assert (await repo.metadata("token") or {}).keys() == {"events", "images", "images.2", "note", "note.2"}
        assert (await repo.update("token", images=["alpine"], note="n")).status == 200
        assert await repo.metadata("token") == {"events": "push", "images": "alpine", "note": "n"}
        assert (await repo.read("token")).json["images"] == ["alpine"]

    async def test_keeps_an_admins_own_metadata_and_data(self, repo: Repository) -> None:
        own = {"owner": "ops", "branches": "main,release/*", "forks": "allow", "images.x": "y", "Events": "no"}
        data = {"value": "one", "user": "x", "nested": {"a": [1, None, True]}, "number": -123456789012}
        await repo.put("token", data, events="tag", **own)
        assert (await repo.update("token", value="two", events=["push"], images=["a"], note="n")).status == 200
        assert await repo.data("token") == {**data, "value": "two"}
        assert await repo.metadata("token") == {**own, "events": "push", "images": "a", "note": "n"}

    async def test_keeps_an_admins_number_with_a_point(self, repo: Repository) -> None:
        data = {"value": "one", "ratio": 1.5, "nested": {"a": [0.25]}}
        await repo.put("token", data)
        assert (await repo.update("token", value="two")).status == 200
        assert await repo.data("token") == {**data, "value": "two"}

    async def test_of_a_value_that_is_no_text_makes_it_one(self, repo: Repository) -> None:
        await repo.put("token", {"value": {"a": 1}})
        assert (await repo.update("token", note="n")).json["value"] == '{"a":1}'
        assert await repo.data("token") == {"value": {"a": 1}}
        assert (await repo.update("token", value="two")).json["value"] == "two"
        assert await repo.data("token") == {"value": "two"}

    async def test_can_mend_restrictions_that_cannot_be_read(self, repo: Repository) -> None:
        await repo.put("token", "one", events="[")
        assert_refused(await repo.update("token", value="two"), 422, "events")
        assert await repo.data("token") == {"value": "one"}
        assert (await repo.update("token", value="three", events=["tag"])).status == 200
        assert (await repo.data("token"), await repo.metadata("token")) == ({"value": "three"}, {"events": "tag"})

    @pytest.mark.parametrize(
        ("document", "detail"),
        [
            ({"events": ["pushed"]}, "Unknown event"),
            ({"images": ["a b"]}, "is no image"),
            ({"images": ["a" * 513]}, "longer than"),
            ({"note": "n" * 512 * 64}, "do not fit"),
            ({"name": "another"}, "names another secret"),
            ({"name": "TOKEN"}, "names another secret"),
            ({"name": " token"}, "names another secret"),
            ({"repo_id": 1}, "another repository"),
            ({"org_id": 1}, "another repository or organization"),
        ],
        ids=lambda value: str(value)[:40],
    )
    async def test_to_what_woodpecker_would_refuse_is_422(
        self, document: dict[str, Any], detail: str, repo: Repository
    ) -> None:
        await repo.create("token", "one")
        assert_refused(await repo.update("token", **{"value": "two", **document}), 422, detail)
        assert (await repo.data("token"), await repo.metadata("token")) == ({"value": "one"}, {"events": "push"})

    @pytest.mark.parametrize("name", ["token", "", None])
    async def test_with_a_body_that_names_the_same_secret(self, name: str | None, repo: Repository) -> None:
        await repo.create("token", "one")
        assert (await repo.update("token", name=name, repo_id=repo.id, value="two")).status == 200

    async def test_at_the_same_time_leaves_one_whole_secret(self, repo: Repository) -> None:
        await repo.create("token", "start", events=["push"], images=["start"])
        wanted = [
            (f"value-{n}", [event], [f"image-{n}"]) for n, event in enumerate(["tag", "cron", "manual", "release"])
        ]
        replies = await asyncio.gather(
            *(repo.update("token", value=value, events=events, images=images) for value, events, images in wanted)
        )
        assert {reply.status for reply in replies} == {200}
        left = (await repo.read("token")).json
        assert (left["value"], left["events"], left["images"]) in wanted
        assert await repo.version("token") == 5
        assert await repo.keys() == ["token"]


class TestDeleting:
    async def test_is_soft_so_that_an_admin_can_undo_it(self, repo: Repository) -> None:
        await repo.create("token", "one", events=["tag"])
        reply = await repo.delete("token")
        assert (reply.status, reply.body) == (204, b"")
        assert (await repo.data("token"), await repo.version("token")) == (None, 1)
        assert await repo.listed() == []
        assert "token" not in await repo.given(event="tag")
        await repo.admin.call("PUT", f"secret/undelete/{repo.folder}/token", {"versions": [1]})
        assert (await repo.given(event="tag"))["token"]["value"] == "one"

    async def test_can_destroy_everything(self, custom: CustomRepository) -> None:
        await custom.put("token", "one", owner="ops")
        await custom.put("token", "two")
        assert (await custom.delete("token")).status == 204
        assert await custom.metadata("token") is None
        assert await custom.keys() == []
        assert (await custom.create("token", "three")).status == 201
        assert (await custom.version("token"), await custom.metadata("token")) == (1, {"events": "push"})

    async def test_touches_nothing_else(self, repo: Repository) -> None:
        for name in ("token", "Token", "tokens", "token/inside"):
            await repo.put(name, name)
        assert (await repo.delete("token")).status == 204
        assert [await repo.data(name) for name in ("token", "Token", "tokens", "token/inside")] == [
            None,
            {"value": "Token"},
            {"value": "tokens"},
            {"value": "token/inside"},
        ]

    async def test_of_what_cannot_be_read_is_possible(self, repo: Repository) -> None:
        await repo.put("token", "one", events="[")
        assert (await repo.delete("token")).status == 204
        assert await repo.data("token") is None

    async def test_at_the_same_time_is_done_once(self, repo: Repository) -> None:
        await repo.put("token", "one")
        asks = (repo.client.send("DELETE", f"{repo.url}/token", age=age) for age in range(4))
        statuses = sorted([reply.status for reply in await asyncio.gather(*asks)])
        assert statuses == [204, 404, 404, 404]


class TestBundlesInTheAlphaForm:
    async def test_are_listed_and_read_key_by_key(self, repo: Repository) -> None:
        await repo.put("docker", {"username": "me", "password": "it", "none": None}, events="tag", images="a", note="n")
        listed = await repo.listed()
        assert [(secret["name"], secret["value"]) for secret in listed] == [
            ("docker_password", "it"),
            ("docker_username", "me"),
        ]
        assert all(secret["events"] == ["tag"] and secret["images"] == ["a"] for secret in listed)
        assert [(await repo.read(secret["name"])).json for secret in listed] == listed
        for name in ("docker", "docker_none", "docker_", "docker_Password", "password"):
            assert_refused(await repo.read(name), 404)

    async def test_cannot_be_written_key_by_key(self, repo: Repository) -> None:
        data = {"username": "me", "pass_word": "it"}
        await repo.put("docker", data, events="tag")
        for name in ("docker_username", "docker_pass_word"):
            assert_refused(await repo.update(name, value="x"), 409, "one key of a larger entry")
            assert_refused(await repo.client.send("DELETE", f"{repo.url}/{name}", age=2), 409, "a larger entry")
            assert_refused(await repo.create(name), 409)
        assert_refused(await repo.create("docker"), 409)
        assert_refused(await repo.update("docker", value="x"), 404)
        assert_refused(await repo.delete("docker"), 404)
        assert (await repo.data("docker"), await repo.version("docker")) == (data, 1)
        assert await repo.keys() == ["docker"]

    async def test_do_not_show_through_an_entry_that_cannot_be_read(self, repo: Repository) -> None:
        await repo.put("docker", {"username": "of the bundle"})
        await repo.put("docker_username", "of the entry", events="[")
        assert "docker_username" not in await repo.given()
        assert_refused(await repo.read("docker_username"), 422, "events")
        assert await repo.listed() == []

    async def test_leave_names_beside_them_free(self, repo: Repository) -> None:
        await repo.put("docker", {"username": "me"})
        assert (await repo.create("docker_password", "it")).status == 201
        assert [secret["name"] for secret in await repo.listed()] == ["docker_password", "docker_username"]
        assert (await repo.delete("docker_password")).status == 204

    async def test_yield_to_an_entry_of_the_same_name(self, repo: Repository) -> None:
        await repo.put("docker", {"username": "of the bundle"})
        await repo.put("docker_username", "of the entry")
        assert [(secret["name"], secret["value"]) for secret in await repo.listed()] == [
            ("docker_username", "of the entry")
        ]
        assert (await repo.read("docker_username")).json["value"] == "of the entry"
        assert (await repo.update("docker_username", value="new")).status == 200
        assert (await repo.delete("docker_username")).status == 204
        assert (await repo.client.send("GET", f"{repo.url}/docker_username", age=2)).json["value"] == "of the bundle"


PLAIN_NAMES = [
    "token", "TOKEN", "a.b", "a-b_c", "a+b", "a b", " leading", "trailing ", "a%20b", "%2e%2e", "%2E%2E", "%", "100%",
    "%zz", "a%2Fb", "%00", "a?b", "a#b", "a&b=c", "a;b", "a,b", "a:b@c", "{x}", "{}", "{repo_id}", "data", "metadata",
    "...", ".a", "a.", "~", "*", "a\\b", "\"'`", "<a>", "[1]", "$x", "|", "^", "é", "e\u0301", "日本語", "🔑",
    "\U0001f468\U0001f3fd", "config", "undelete", "null", "0", "x" * 255, "🔑" * 63, "_", "_a", "a_", "a__b", ".lock",
]  # fmt: skip
"""Names that are in Vault what they are."""

ESCAPED_NAMES = {
    "a\u00a0b": "a%C2%A0b",
    "\u00a0": "%C2%A0",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467": "\U0001f468%E2%80%8D\U0001f469%E2%80%8D\U0001f467",
    "\u202eabc": "%E2%80%AEabc",
    "a\ufeff": "a%EF%BB%BF",
    "a\u2028b": "a%E2%80%A8b",
    "\u3000": "%E3%80%80",
    "\ue000": "%EE%80%80",
    "\u00ad": "%C2%AD",
}
"""Names that Vault would refuse, and what they are in it instead."""

IMPOSSIBLE_NAMES = {
    "": "one path segment",
    ".": "one path segment",
    "..": "one path segment",
    "/": "one path segment",
    "a/b": "one path segment",
    "../x": "one path segment",
    "a/": "one path segment",
    "x" * 256: "at most 255 bytes",
    "🔑" * 64: "at most 255 bytes",
    "a%C2%A0b": "cannot be told from another",
    "%E2%80%8D": "cannot be told from another",
}
CONTROL_NAMES = ["a\x00b", "\n", "a\r\n", "\x7f", "\x1b[0m", "\u0085"]


class TestNames:
    @pytest.mark.parametrize("name", [*PLAIN_NAMES, *ESCAPED_NAMES], ids=lambda name: ascii(name)[:30])
    async def test_of_every_kind_go_to_vault_and_come_back(self, name: str, repo: Repository) -> None:
        created = await repo.create(name, "one")
        assert (created.status, created.json["name"]) == (201, name), created.body
        assert await repo.keys() == [ESCAPED_NAMES.get(name, name)]
        assert await repo.data(ESCAPED_NAMES.get(name, name)) == {"value": "one"}
        assert (await repo.read(name)).json == created.json
        assert await repo.listed() == [created.json]
        assert (await repo.given())[name]["value"] == "one"
        assert (await repo.update(name, name=name, value="two")).status == 200
        assert await repo.data(ESCAPED_NAMES.get(name, name)) == {"value": "two"}
        assert (await repo.delete(name)).status == 204
        assert await repo.listed("?page=1") == []

    @pytest.mark.parametrize("name", [*IMPOSSIBLE_NAMES, *CONTROL_NAMES], ids=lambda name: ascii(name)[:30])
    async def test_that_cannot_be_one_segment_are_422(self, name: str, repo: Repository) -> None:
        detail = IMPOSSIBLE_NAMES.get(name, "control characters")
        await repo.put("a/b", "inside a folder")
        await repo.put("a", "beside it")
        before = await repo.admin.list("woodpecker/repo")
        assert_refused(await repo.create(name), 422, detail)
        path = f"{repo.url}/{quote(name, safe='')}"
        for number, (method, body) in enumerate((("GET", None), ("PUT", b'{"value": "x"}'), ("DELETE", None))):
            # By a client that signs the path as it is sent: Woodpecker's decoded one may hold a line break here.
            headers = signed_as_sent(repo.client, path, body, int(time.time()) - number)
            assert_refused(await repo.client.raw(method, path, body, headers), 422, detail)
        assert await repo.data("a/b") == {"value": "inside a folder"}
        assert await repo.data("a") == {"value": "beside it"}
        assert await repo.admin.list("woodpecker/repo") == before

    @pytest.mark.parametrize("name", CONTROL_NAMES[:5], ids=ascii)
    async def test_with_a_control_character_are_401_where_the_signed_path_would_hold_it(
        self, name: str, repo: Repository
    ) -> None:
        assert_refused(await repo.read(name), 401)

    @pytest.mark.parametrize("segment", ["%FF", "%C3", "%ED%A0%80", "a%F4%90%80%80"])
    async def test_that_are_no_unicode_are_422(self, segment: str, repo: Repository) -> None:
        for method, age in (("GET", 0), ("DELETE", 1)):
            reply = await repo.client.send(method, f"{repo.url}/{segment}", age=age)
            assert_refused(reply, 422, "percent-encoded UTF-8")

    @pytest.mark.parametrize("path", ["a/b", "a/", "a//b", "../x", "./a", "a/../b"])
    async def test_with_a_plain_slash_are_another_route(self, path: str, repo: Repository) -> None:
        await repo.put("a/b", "inside a folder")
        assert_refused(await repo.client.send("GET", f"{repo.url}/{path}"), 404, "no such route")

    async def test_that_differ_by_case_are_different(self, repo: Repository) -> None:
        for name in ("token", "Token", "TOKEN"):
            assert (await repo.create(name, name)).status == 201
        assert [secret["value"] for secret in await repo.listed()] == ["TOKEN", "Token", "token"]
        assert (await repo.update("Token", value="new")).status == 200
        assert (await repo.delete("TOKEN")).status == 204
        assert [secret["value"] for secret in await repo.listed()] == ["new", "token"]

    async def test_that_differ_by_case_are_one_to_a_pipeline(self, repo: Repository) -> None:
        for name in ("token", "Token", "TOKEN"):
            await repo.put(name, name)
        assert len({name for name in await repo.given() if name.lower() == "token"}) == 1

    async def test_that_look_alike_are_different(self, repo: Repository) -> None:
        names = ["a b", "a%20b", "a+b", "a\u00a0b", "é", "e\u0301", "a%2520b"]
        for name in names:
            assert (await repo.create(name, name)).status == 201
        assert [secret["value"] for secret in await repo.listed()] == sorted(names)
        for name in names:
            assert (await repo.read(name)).json["value"] == name

    async def test_that_an_admin_escaped_stay_as_he_wrote_them(self, repo: Repository) -> None:
        for segment in ("a%2Fb", "a%41", "%2e%2e", "%C2%A0", "%C3", "%0A"):
            await repo.put(segment, segment)
        names = {secret["value"]: secret["name"] for secret in await repo.listed()}
        assert names == {
            "a%2Fb": "a%2Fb",
            "a%41": "a%41",
            "%2e%2e": "%2e%2e",
            "%C2%A0": "\u00a0",
            "%C3": "%C3",
            "%0A": "%0A",
        }
        for segment, name in names.items():
            assert (await repo.read(name)).json["value"] == segment


def signed_as_sent(client: Client, path: str, body: bytes | None, created: int) -> dict[str, str]:
    """A signature over the encoded path, as RFC 9421 has it."""
    return signed_headers(client.key, quote(path, safe="/"), body, created)


GIVEN_BY_EVENT = [
    # what the entry says, the pipeline's event, whether it is given
    *((None, event, event in DEFAULT_EVENTS) for event in [*DEFAULT_EVENTS, *PULL_REQUESTS]),
    *(("pull_request", event, event in PULL_REQUESTS) for event in [*DEFAULT_EVENTS, *PULL_REQUESTS]),
    *(("pull_request_closed", event, False) for event in [*DEFAULT_EVENTS, *PULL_REQUESTS]),
    *(("pull_request_metadata", event, False) for event in PULL_REQUESTS),
    ("push", "push", True),
    ("push", "tag", False),
    ("push,pull_request", "pull_request_closed", True),
    ("push,tag", "tag", True),
    (" push , tag ", "tag", True),
    (",,tag,", "tag", True),
    (",", "push", True),
    (",", "pull_request", False),
    ('["push", " tag "]', "tag", True),
    ('["push", "tag"]', "cron", False),
    (' ["tag"] ', "tag", True),
    ("[]", "push", True),
    ("[]", "pull_request", False),
    ("Push", "push", False),
    ("none", "push", False),
    ("*", "push", False),
    ("push tag", "push", False),
    ("push", "pushed", False),
    ("push", "", False),
    ("pushed", "pushed", True),
]

GIVEN_BY_BRANCH = [
    # what the entry says, the pipeline's event and branch, whether it is given
    ("main", "push", "main", True),
    ("main", "push", "Main", False),
    ("main", "push", "maint", False),
    ("main", "push", "main\n", False),
    ("main", "push", "x/main", False),
    ("main", "push", "", False),
    ("main, release", "push", "release", True),
    ('["main", "release"]', "push", "release", True),
    ("release/*", "push", "release/1", True),
    ("release/*", "push", "release/", True),
    ("release/*", "push", "release/1/2", False),
    ("release/**", "push", "release/1/2", True),
    ("release/*", "push", "release", False),
    ("*", "push", "main", True),
    ("*", "push", "a/b", False),
    ("**", "push", "a/b", True),
    ("v?", "push", "v1", True),
    ("v?", "push", "v12", False),
    ("v?", "push", "v/", False),
    ("v1.0", "push", "v1x0", False),
    ("v(1)", "push", "v(1)", True),
    ("[ab", "push", "a", False),
    ("main", "cron", "main", True),
    ("main", "release", "main", False),
    ("main", "pull_request", "main", True),
    ("main", "pull_request", "feature", False),
    ("main", "pull_request_closed", "main", True),
    ("main", "pull_request_metadata", "main", True),
    ("main", "tag", "", False),
    ("main", "tag", "main", False),
    ("main", "manual", "main", False),
    ("**", "manual", "main", False),
    ("main", "deployment", "main", False),
    (",", "manual", "main", True),
    (",", "tag", "", True),
]


class TestAPipelineGets:
    async def test_name_value_images_and_events(self, repo: Repository) -> None:
        await repo.put(
            "token", {"value": "one", "more": "x"}, events="push, tag", images="a, b:1", note="n", branches="main"
        )
        assert (await repo.given())["token"] == {
            "name": "token",
            "value": "one",
            "images": ["a", "b:1"],
            "events": ["push", "tag"],
        }

    async def test_an_entry_without_events_with_the_default_ones(self, repo: Repository) -> None:
        await repo.put("token", "one")
        assert (await repo.given())["token"] == {
            "name": "token",
            "value": "one",
            "images": [],
            "events": DEFAULT_EVENTS,
        }

    async def test_secrets_sorted_by_name(self, repo: Repository) -> None:
        for name in ("b", "a", "C", "é"):
            await repo.put(name, "x")
        names = [secret["name"] for secret in (await repo.withheld()).json["secrets"]]
        assert names == sorted(names)
        assert {"C", "a", "b", "é"} <= set(names)

    async def test_an_empty_list_where_there_is_nothing(self, custom: CustomRepository) -> None:
        reply = await custom.client.send("POST", "/secrets", pipeline_body({"id": custom.id, "owner": ""}, event="tag"))
        assert (reply.status, reply.body) == (200, b'{"secrets":[]}')

    async def test_what_an_admin_changed_just_now(self, repo: Repository) -> None:
        for number in range(3):
            await repo.put("token", f"value {number}")
            assert (await repo.given())["token"]["value"] == f"value {number}"
        await repo.admin.set_metadata(f"{repo.folder}/token", {"events": "tag"})
        assert "token" not in await repo.given()
        assert "token" in await repo.given(event="tag")
        await repo.admin.delete(f"{repo.folder}/token")
        assert "token" not in await repo.given(event="tag")

    @pytest.mark.parametrize(("events", "event", "given"), GIVEN_BY_EVENT)
    async def test_a_secret_for_its_events(self, events: str | None, event: str, given: bool, repo: Repository) -> None:  # noqa: FBT001
        await repo.put("token", "one", **({} if events is None else {"events": events}))
        assert ("token" in await repo.given(event=event)) is given

    @pytest.mark.parametrize(("branches", "event", "branch", "given"), GIVEN_BY_BRANCH)
    async def test_a_secret_for_its_branches(
        self, repo: Repository, *, branches: str, event: str, branch: str, given: bool
    ) -> None:
        await repo.put("token", "one", branches=branches, events=",".join([*DEFAULT_EVENTS, "pull_request"]))
        assert (
            "token" in await repo.given(event=event, branch=branch, ref="refs/pull/7/head", refspec=f"fix:{branch}")
        ) is given

    async def test_a_secret_for_branches_that_are_continued(self, repo: Repository) -> None:
        await repo.put("token", "one", **{"branches": "main", "branches.2": "release/*,next"})
        assert "token" in await repo.given(branch="next")
        assert "token" in await repo.given(branch="main")
        assert "token" not in await repo.given(branch="other")

    @pytest.mark.parametrize(
        ("forks", "given"),
        [(None, False), ("deny", False), ("allow", True), (" ALLOW ", True), (" ", False), ("true", False)],
    )
    async def test_a_secret_for_forks_only_if_the_entry_says_so(
        self,
        forks: str | None,
        given: bool,  # noqa: FBT001
        repo: Repository,
    ) -> None:
        await repo.put("token", "one", events="pull_request", **({} if forks is None else {"forks": forks}))
        assert ("token" in await repo.given(event="pull_request", from_fork=True)) is given
        assert ("token" in await repo.given(event="pull_request", from_fork=False)) is (forks != "true")
        assert ("token" in await repo.given(event="pull_request")) is (forks != "true")
        assert "token" not in await repo.given(event="push", from_fork=True)

    @pytest.mark.parametrize(
        ("forks", "given"), [(None, True), ("deny", False), (" Deny ", False), ("allow", True), ("maybe", False)]
    )
    async def test_a_secret_for_forks_unless_the_entry_denies_it_where_the_settings_allow_them(
        self,
        forks: str | None,
        given: bool,  # noqa: FBT001
        custom: CustomRepository,
    ) -> None:
        await custom.put("token", "one", events="pull_request", **({} if forks is None else {"forks": forks}))
        assert ("token" in await custom.given(event="pull_request", from_fork=True)) is given

    async def test_images_that_go_past_what_one_value_holds(self, repo: Repository) -> None:
        chunks = in_chunks(MANY_IMAGES, 4)
        metadata = {f"images.{number + 1}" if number else "images": chunk for number, chunk in enumerate(chunks)}
        assert "images.10" in metadata
        await repo.put("token", "one", **metadata)
        assert (await repo.given())["token"]["images"] == MANY_IMAGES

    @pytest.mark.parametrize(
        ("metadata", "images"),
        [
            ({"images": " a , b:1 ,, "}, ["a", "b:1"]),
            ({"images": '["a", "b:1", "a"]'}, ["a", "b:1"]),
            ({"images": "a,b", "images.2": '["c", "d"]'}, ["a", "b", "c", "d"]),
            ({"images.2": "c"}, ["c"]),
            ({"images": "a", "images.3": "c"}, ["a", "c"]),
            ({"images": "a", "images.1": "no", "images.02": "no", "images.x": "no", "images2": "no"}, ["a"]),
            ({"images": "a", "Images": "b"}, ["a"]),
            ({"images": "[]"}, []),
        ],
        ids=str,
    )
    async def test_images_as_an_admin_writes_them(
        self, metadata: dict[str, str], images: list[str], repo: Repository
    ) -> None:
        await repo.put("token", "one", **metadata)
        assert (await repo.given())["token"]["images"] == images

    @pytest.mark.parametrize(
        ("value", "text"),
        [
            (5, "5"),
            (0, "0"),
            (-1, "-1"),
            (123456789012345, "123456789012345"),
            (1e-7, "1e-7"),
            (1.5, "1.5"),
            (0.1, "0.1"),
            (True, "true"),
            (False, "false"),
            ({"a": 1}, '{"a":1}'),
            ({}, "{}"),
            ([], "[]"),
            ([1, "x", None, True, 2.5, {"b": []}], '[1,"x",null,true,2.5,{"b":[]}]'),
            ({"ä": "ö", 'q"': "\n"}, '{"q\\"":"\\n","ä":"ö"}'),
            ("5", "5"),
            ("multi\nline\n", "multi\nline\n"),
            ("ünï 🔑 \u2028", "ünï 🔑 \u2028"),
        ],
        ids=lambda value: ascii(value),  # noqa: PLW0108 - ids wants a function that has a signature
    )
    async def test_a_value_that_is_no_text_as_its_json(self, value: object, text: str, repo: Repository) -> None:
        await repo.put("token", {"value": value})
        assert (await repo.given())["token"]["value"] == text
        assert (await repo.read("token")).json["value"] == text

    @pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")
    async def test_a_value_of_a_megabyte(self, repo: Repository) -> None:
        value = "é" * 500_000
        await repo.put("token", value)
        assert (await repo.given())["token"]["value"] == value

    async def test_three_hundred_secrets(self, repo: Repository) -> None:
        await asyncio.gather(*(repo.put(f"s{number:03}", f"value {number}") for number in range(300)))
        given = await repo.given()
        assert [given[f"s{number:03}"]["value"] for number in range(300)] == [
            f"value {number}" for number in range(300)
        ]
        assert len({secret["id"] for secret in await repo.listed()}) == 300

    async def test_nothing_of_what_is_no_secret(self, repo: Repository) -> None:
        before = await repo.given()
        await repo.put("null", {"value": None})
        await repo.put("empty", {})
        await repo.put("nulls", {"a": None, "value": None})
        await repo.put("deleted", "x")
        await repo.admin.delete(f"{repo.folder}/deleted")
        await repo.put("destroyed", "x")
        await repo.admin.destroy(f"{repo.folder}/destroyed", 1)
        await repo.put("again", "x")
        await repo.put("again", "y")
        await repo.admin.delete(f"{repo.folder}/again")
        await repo.admin.set_metadata(f"{repo.folder}/unborn", {"events": "push"})
        await repo.put("folder/inside", "x")
        assert set(await repo.given()) == set(before)

    async def test_nothing_whose_restrictions_cannot_be_read_and_the_log_says_why(
        self, repo: Repository, service: Service
    ) -> None:
        wrong = {
            "e1": ({"events": '["push"'}, "events looks like a JSON array, but is none"),
            "e2": ({"events": "[1]"}, "events is a JSON array, but not of strings"),
            "i": ({"images": "a", "images.2": "["}, "images.2 looks like a JSON array, but is none"),
            "b": ({"branches": "[x]"}, "branches looks like a JSON array, but is none"),
            "f": ({"forks": "maybe"}, 'forks must be "allow" or "deny"'),
        }
        for name, (metadata, _) in wrong.items():
            await repo.put(name, "hidden-value", **metadata)
        reply = await repo.withheld()
        assert b"hidden-value" not in reply.body
        line = await service.logged(reply.headers["X-Request-Id"])
        for name, (_, reason) in wrong.items():
            assert line["withheld"][name] == f"its restrictions cannot be read: {reason}"

    async def test_with_fields_that_nobody_knows(self, repo: Repository) -> None:
        await repo.put("token", "one")
        body = pipeline_body({"id": repo.id, "new": [1]}, new={"a": None}, event_reason=["x"], labels={"a": "b"})
        reply = await repo.client.send("POST", "/secrets", {**body, "configs": [], "": None, "netrc": 5})
        assert "token" in [secret["name"] for secret in reply.json["secrets"]]
        least = {"repo": {"id": repo.id}, "pipeline": {"event": "push"}}
        reply = await repo.client.send("POST", "/secrets", least)
        assert "token" in [secret["name"] for secret in reply.json["secrets"]]


class TestABundle:
    async def test_gives_a_secret_for_each_of_its_keys(self, repo: Repository) -> None:
        await repo.put("docker", {"username": "me", "password": "it", "none": None, "port": 5000, "Sub Key": {"a": 1}})
        given = await repo.given()
        assert {name: given[name]["value"] for name in given if name.startswith("docker")} == {
            "docker_username": "me",
            "docker_password": "it",
            "docker_port": "5000",
            "docker_Sub Key": '{"a":1}',
        }

    async def test_is_restricted_as_a_whole(self, repo: Repository) -> None:
        await repo.put("docker", {"username": "me"}, events="push", images="a", branches="main", forks="allow")
        given = await repo.given(branch="main", from_fork=True)
        assert given["docker_username"] == {
            "name": "docker_username",
            "value": "me",
            "images": ["a"],
            "events": ["push"],
        }
        assert "docker_username" not in await repo.given(branch="other")
        assert "docker_username" not in await repo.given(event="tag")
        await repo.admin.set_metadata(f"{repo.folder}/docker", {"forks": "maybe"})
        assert "docker_username" not in await repo.given()

    async def test_is_none_once_it_has_a_value(self, repo: Repository) -> None:
        await repo.put("docker", {"username": "me", "value": "one"})
        given = await repo.given()
        assert (given["docker"]["value"], "docker_username" in given) == ("one", False)
        await repo.put("docker", {"username": "me", "value": None})
        given = await repo.given()
        assert (given["docker_username"]["value"], "docker" in given) == ("me", False)

    @pytest.mark.parametrize("bundle", ["docker", "Docker", "DOCKER"])
    async def test_yields_to_an_entry_of_the_same_name(self, bundle: str, repo: Repository) -> None:
        await repo.put(bundle, {"username": "of the bundle", "password": "it"})
        await repo.put("docker_username", "of the entry", events="tag")
        given = await repo.given(event="tag")
        values = {name.lower(): secret["value"] for name, secret in given.items() if "docker" in name.lower()}
        assert values == {"docker_username": "of the entry", "docker_password": "it"}
        assert [name for name in await repo.given() if name.lower() == "docker_username"] == []


class TestLayers:
    async def test_later_ones_win_by_name_whatever_its_case(
        self, repo: Repository, org_id: int, admin: Admin, prefix: str
    ) -> None:
        a, b, c = (f"{prefix}_{letter}" for letter in "abc")
        for name in (a, b.upper(), c):
            await admin.put(f"woodpecker/global/{name}", "global")
        for name in (b, c.upper()):
            await admin.put(f"woodpecker/org/{org_id}/{name}", "org")
        await repo.put(c.title(), "repo")
        given = await repo.given(org_id)
        ours = {name: secret["value"] for name, secret in given.items() if name.lower().startswith(prefix)}
        assert ours == {a: "global", b: "org", c.title(): "repo"}

    async def test_an_organization_is_only_for_its_own(
        self, repo: Repository, org_id: int, another_repo: Repository, admin: Admin
    ) -> None:
        await admin.put(f"woodpecker/org/{org_id}/token", "org")
        assert (await repo.given(org_id))["token"]["value"] == "org"
        assert "token" not in await repo.given(org_id + 1_000_000)
        assert (await another_repo.given(org_id))["token"]["value"] == "org"

    @pytest.mark.parametrize("org_id", [0, -1])
    async def test_no_organization_is_no_layer(self, org_id: int, repo: Repository, prefix: str) -> None:
        await repo.admin.put(f"woodpecker/org/{org_id}/{prefix}", "x")
        await repo.admin.put(f"woodpecker/org/{prefix}", "x")
        await repo.put("token", "x")
        given = await repo.given(org_id)
        assert ("token" in given, prefix in given) == (True, False)

    async def test_one_that_is_not_given_hides_the_wider_ones_all_the_same(
        self, repo: Repository, org_id: int, admin: Admin
    ) -> None:
        for name, metadata in (
            ("token", {"events": "tag"}),
            ("broken", {"events": "["}),
            ("bundle_key", {"forks": "?"}),
        ):
            await admin.put(f"woodpecker/org/{org_id}/{name}", "org")
            await repo.put(name, "repo", **metadata)
        given = await repo.given(org_id)
        assert given.keys() & {"token", "broken", "bundle_key"} == set()
        assert (await repo.given(org_id, event="tag"))["token"]["value"] == "repo"

    async def test_a_deleted_one_hides_nothing(self, repo: Repository, org_id: int, admin: Admin) -> None:
        await admin.put(f"woodpecker/org/{org_id}/token", "org")
        await repo.put("token", "repo")
        assert (await repo.given(org_id))["token"]["value"] == "repo"
        await repo.delete("token")
        assert (await repo.given(org_id))["token"]["value"] == "org"

    async def test_a_bundle_hides_the_wider_ones_key_by_key(self, repo: Repository, org_id: int, admin: Admin) -> None:
        await admin.put(f"woodpecker/org/{org_id}/docker_username", "org")
        await admin.put(f"woodpecker/org/{org_id}/docker_password", "org")
        await repo.put("docker", {"username": "repo"})
        given = await repo.given(org_id)
        assert (given["docker_username"]["value"], given["docker_password"]["value"]) == ("repo", "org")


class TestTemplates:
    """With other layers than the default ones."""

    async def _asked(self, custom: CustomRepository, repo: Mapping[str, Any], **pipeline: Any) -> dict[str, Any]:
        given = await custom.client.secrets(repo={"id": custom.id, **repo}, **pipeline)
        return {name: secret["value"] for name, secret in given.items()}

    async def test_a_single_entry_gives_a_secret_for_each_of_its_keys(self, custom: CustomRepository) -> None:
        data = {"user": "me", "value": "a key like any other", "none": None, "port": 5000}
        await custom.admin.put(f"layers/one/x-{custom.id}", data, events="push,tag", images="a", branches="main")
        given = await custom.given(branch="main")
        assert {name: secret["value"] for name, secret in given.items()} == {
            "user": "me",
            "value": "a key like any other",
            "port": "5000",
        }
        assert {tuple(secret["events"]) for secret in given.values()} == {("push", "tag")}
        assert {tuple(secret["images"]) for secret in given.values()} == {("a",)}
        assert await custom.given(branch="other") == {}
        await custom.admin.delete(f"layers/one/x-{custom.id}")
        assert await custom.given(branch="main") == {}

    async def test_a_single_entry_is_a_layer_like_any_other(self, custom: CustomRepository) -> None:
        await custom.admin.put(f"layers/one/x-{custom.id}", {"token": "single", "other": "single"}, events="push")
        await custom.put("Token", "folder", events="push")
        assert await self._asked(custom, {}) == {"Token": "folder", "other": "single"}

    async def test_a_single_entry_without_placeholders_is_for_all(self, custom: CustomRepository) -> None:
        await custom.admin.put("layers/ci/shared", {"shared": "one"}, branches=f"only-{custom.id}", events="push")
        assert await self._asked(custom, {}, branch=f"only-{custom.id}") == {"shared": "one"}
        assert await self._asked(custom, {"id": custom.id + 1}, branch=f"only-{custom.id}") == {"shared": "one"}
        assert await self._asked(custom, {}) == {}

    @pytest.mark.parametrize(
        ("owner", "folder"),
        [
            ("acme", "acme"),
            ("a/b", "a%2Fb"),
            ("..", "%2E%2E"),
            ("%2E%2E", "%252E%252E"),
            ("é", "é"),
            ("a\u00a0b", "a%C2%A0b"),
            ("a\nb", "a%0Ab"),
            ("{repo}", "{repo}"),
            ("a b", "a b"),
        ],
    )
    async def test_an_owner_is_one_segment(self, owner: str, folder: str, custom: CustomRepository) -> None:
        await custom.admin.put(f"layers/owner/{folder}/r{custom.id}/token", "one", events="push")
        assert await self._asked(custom, {"owner": owner, "name": f"r{custom.id}"}) == {"token": "one"}
        assert await self._asked(custom, {"owner": f"{owner}x", "name": f"r{custom.id}"}) == {}
        assert await self._asked(custom, {"owner": owner.upper() + "X", "name": f"r{custom.id}"}) == {}

    async def test_an_owner_cannot_reach_another_repositorys_folder(self, custom: CustomRepository) -> None:
        await custom.put("token", "of the repository", events="push")
        for owner, name in (("../home", f"{custom.id}/ci"), ("..", "home"), (f"../home/{custom.id}", "ci"), (".", ".")):
            assert await self._asked(custom, {"id": custom.id + 1_000_000, "owner": owner, "name": name}) == {}

    async def test_a_forge_is_told_from_another(self, custom: CustomRepository) -> None:
        await custom.admin.put(f"layers/forge/3/{custom.id}/token", "one", events="push")
        assert await self._asked(custom, {"forge_id": 3, "forge_remote_id": str(custom.id)}) == {"token": "one"}
        assert await self._asked(custom, {"forge_id": 4, "forge_remote_id": str(custom.id)}) == {}
        assert await self._asked(custom, {"forge_id": 0, "forge_remote_id": str(custom.id)}) == {}
        assert await self._asked(custom, {"forge_id": 3, "forge_remote_id": ""}) == {}

    async def test_an_event_has_its_own_folder(self, custom: CustomRepository) -> None:
        name = f"token{custom.id}"
        await custom.admin.put(f"layers/event/cron/{name}", "one", events="cron,push")
        assert name in await self._asked(custom, {}, event="cron")
        assert name not in await self._asked(custom, {}, event="push")

    @pytest.mark.parametrize("branch", ["main", "feature/x", "a/../b", "100%", "release/1.0/é"])
    async def test_a_branch_is_one_segment_and_only_one_that_the_forge_vouches_for(
        self, branch: str, custom: CustomRepository
    ) -> None:
        branch = f"{branch}-{custom.id}"
        segment = branch.replace("%", "%25").replace("/", "%2F")
        await custom.admin.put(f"layers/branch/{segment}/token", "one", events="push,manual,tag,pull_request")
        assert await self._asked(custom, {}, branch=branch) == {"token": "one"}
        assert await self._asked(custom, {}, refspec=f"fix:{branch}", event="pull_request") == {"token": "one"}
        assert await self._asked(custom, {}, branch=branch, event="pull_request") == {}
        assert await self._asked(custom, {}, branch=segment if segment != branch else "x") == {}
        for event in ("manual", "tag", "deployment"):
            assert await self._asked(custom, {}, branch=branch, event=event) == {}

    async def test_a_layer_whose_placeholder_is_empty_is_left_out(self, custom: CustomRepository) -> None:
        await custom.admin.put(f"layers/branch/token{custom.id}", "one", events="tag")
        await custom.admin.put(f"layers/owner/x{custom.id}/token", "one", events="tag")
        await custom.put("own", "two", events="tag")
        asked = {"owner": "", "name": f"x{custom.id}"}
        assert await self._asked(custom, asked, event="tag", branch="") == {"own": "two"}
        assert await self._asked(custom, {"owner": f"x{custom.id}", "name": ""}, event="tag") == {"own": "two"}

    async def test_the_default_events_are_what_is_set(self, custom: CustomRepository) -> None:
        await custom.put("token", "one")
        assert (await custom.given(event="manual"))["token"]["events"] == ["manual", "pull_request"]
        assert "token" in await custom.given(event="pull_request_closed")
        assert "token" not in await custom.given(event="push")
        created = await custom.create("new", events=[])
        assert (created.json["events"], await custom.metadata("new")) == (["manual", "pull_request"], {})
        assert (await custom.read("new")).json == created.json

    async def test_the_alpha_form_is_where_the_settings_say(self, custom: CustomRepository, admin: Admin) -> None:
        assert (await custom.create("token", "one")).status == 201
        assert await admin.list(f"layers/home/{custom.id}/ci") == ["token"]
        assert await admin.list(f"woodpecker/repo/{custom.id}") == []
        assert [secret["name"] for secret in await custom.listed()] == ["token"]
