"""The use cases, each over the one thing it needs: something that keeps entries."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from woodpecker_vault.access import Verdict, decide
from woodpecker_vault.entries import (
    Change,
    Entry,
    MetadataPatch,
    PatchMetadata,
    Snapshot,
    Step,
    StoredSecret,
    merged,
    patched,
    secret_of,
    secrets_by_key,
    secrets_in_bundle,
    steps_to_create,
    steps_to_update,
    stored_value,
)
from woodpecker_vault.errors import Conflict, Denied, Invalid, NotFound, Unavailable
from woodpecker_vault.paths import Template, name_of, segment_of
from woodpecker_vault.tasks import all_of
from woodpecker_vault.woodpecker import (
    PipelineRequest,
    Secret,
    SecretBody,
    check_events,
    check_images,
)


class Answers(Protocol):
    """Where the entries for an answer come from; paths are relative to the mount."""

    async def folder(self, folder: str) -> Snapshot:
        """Every entry in a folder, by its segment; ``folder`` ends in ``/``."""

    async def entry(self, path: str) -> Snapshot:
        """The entry at a path, alone, by its segment."""


class Store(Protocol):
    """What the use cases need of Vault's KV v2 itself; paths are relative to the mount."""

    async def list(self, folder: str) -> list[str]:
        """The segments of the entries in a folder."""

    async def read(self, path: str) -> Entry:
        """The current version of an entry."""

    async def put(self, path: str, data: Mapping[str, Any], *, cas: int) -> None:
        """Write a new version if ``cas`` is the current one, or raise :exc:`Conflict`."""

    async def patch_metadata(self, path: str, patch: MetadataPatch) -> None:
        """Change custom metadata, making the entry if need be."""

    async def delete(self, path: str) -> None:
        """Delete the current version."""

    async def destroy(self, path: str) -> None:
        """Remove the entry and all its versions."""


@dataclass(frozen=True, slots=True)
class Rules:
    """``[secrets]``: where secrets are and what holds where an entry does not say."""

    layers: tuple[Template, ...]
    repo: Template
    default_events: tuple[str, ...]
    forks_allowed: bool = False
    destroy_on_delete: bool = False


@dataclass(frozen=True, slots=True)
class Decided:
    """A secret that a pipeline's layers hold, and whether the pipeline may have it."""

    stored: StoredSecret
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Decision:
    """Every secret of a pipeline's layers, sorted by name, each with a verdict.

    ``stale`` says that Vault could not be asked for some of it, and that it is what Vault said before.
    """

    secrets: list[Decided]
    stale: bool = False


class Service:
    """What Woodpecker asks for.

    All of it raises :exc:`woodpecker_vault.errors.Denied` or :exc:`Unavailable` when Vault does not play along.

    Args:
        store: reads and writes entries.
        fresh: reads what Vault holds now.
        answers: the same for pipelines; what they get may come from a cache.
        hold: makes the caller the only writer of the entry at a path, while it is entered; a number tells it
            which write that is, so that a repetition can go on where the first was cut short.
        rules: ``[secrets]``.
    """

    def __init__(
        self,
        store: Store,
        fresh: Answers,
        answers: Answers,
        hold: Callable[[str, int], AbstractAsyncContextManager[None]],
        rules: Rules,
    ) -> None:
        self._store = store
        self._fresh = fresh
        self._answers = answers
        self._hold = hold
        self._rules = rules

    async def pipeline_secrets(self, request: PipelineRequest) -> Decision:
        """What the pipeline's layers hold, and whether the pipeline may have it.

        A layer with a placeholder that has no value for this pipeline (a tag's branch) is left out.
        """
        values = placeholder_values(request)
        # All at once, but the last one first: it is the repository's own and has the most to read after its list.
        layers = await all_of(self._layer(template, values) for template in reversed(self._rules.layers))
        decided = [
            Decided(stored, decide(stored, request.pipeline, forks_allowed=self._rules.forks_allowed))
            for stored in merged(secrets for secrets, _ in reversed(layers))
        ]
        return Decision(decided, stale=any(stale for _, stale in layers))

    async def list_secrets(self, repo_id: int) -> list[Secret]:
        """A repository's own secrets, sorted by name, without those whose restrictions cannot be read."""
        folder = self._folder_of(repo_id)
        found = self._secrets_in(folder, await self._fresh.folder(folder))
        by_name = {one.secret.name: one for one in found}
        return [by_name[name].secret for name in sorted(by_name) if not by_name[name].unreadable]

    async def get_secret(self, repo_id: int, name: str) -> Secret:
        """One of a repository's own secrets.

        Raises:
            NotFound: it has none of that name.
            Invalid: no secret can have that name, or its restrictions cannot be read.
        """
        path = self._path_of(repo_id, name)
        stored = secret_of(await self._store.read(path), path, name, self._rules.default_events)
        stored = stored or await self._bundled(repo_id, name)
        if stored is None:
            raise _no_such_secret()
        return _readable(stored)

    async def create_secret(self, repo_id: int, body: SecretBody) -> Secret:
        """Make a secret that is not there yet.

        Raises:
            Conflict: its name is taken.
            Invalid: Woodpecker would refuse it.
        """
        body.check_belongs_to(repo_id)
        path = self._path_of(repo_id, body.name or "")
        if body.value is None or not body.value.get_secret_value():
            raise Invalid("A secret needs a value.")
        change = Change(
            value=body.value,
            events=check_events(body.events or ()),
            images=check_images(body.images or ()),
            note=body.note or "",
        )
        await self._check_free(await self._store.read(path), repo_id, body.name or "")
        async with self._hold(path, hash(("create", change))):
            entry = await self._store.read(path)
            await self._check_free(entry, repo_id, body.name or "")
            await self._carry_out(path, entry, steps_to_create(entry, change))
        return Secret(
            name=body.name or "",
            value=body.value,
            images=change.images or (),
            events=change.events or self._rules.default_events,
            note=change.note or "",
        )

    async def update_secret(self, repo_id: int, name: str, body: SecretBody) -> Secret:
        """Change a secret; what the body does not mention stays.

        Raises:
            NotFound: there is none of that name.
            Conflict: it is part of a larger entry, or another write came first.
            Invalid: Woodpecker would refuse it.
        """
        path = self._path_of(repo_id, name)
        body.check_belongs_to(repo_id, name)
        given = body.model_fields_set
        change = Change(
            value=body.value if body.value and body.value.get_secret_value() else None,
            events=check_events(body.events or ()) if "events" in given else None,
            images=check_images(body.images or ()) if "images" in given else None,
            note=(body.note or "") if "note" in given else None,
        )
        async with self._hold(path, hash(("update", change))):
            entry = await self._existing(repo_id, path, name)
            steps = steps_to_update(entry, change, self._rules.default_events)
            after = _readable(self._after(entry, steps, path, name))
            await self._carry_out(path, entry, steps)
        return after

    async def delete_secret(self, repo_id: int, name: str) -> None:
        """Delete a secret.

        Raises:
            NotFound: there is none of that name.
            Conflict: it is part of a larger entry.
        """
        path = self._path_of(repo_id, name)
        async with self._hold(path, hash("delete")):
            await self._existing(repo_id, path, name)
            if self._rules.destroy_on_delete:
                await _written(self._store.destroy(path))
            else:
                await _written(self._store.delete(path))

    async def _layer(self, template: Template, values: Mapping[str, str]) -> tuple[list[StoredSecret], bool]:
        """The secrets of a layer, and whether they are stale."""
        path = template.render(values)
        if path is None:
            return [], False
        if template.is_folder:
            snapshot = await self._answers.folder(path)
            return self._secrets_in(path, snapshot), snapshot.stale
        snapshot = await self._answers.entry(path)
        by_key = (secrets_by_key(entry, path, self._rules.default_events) for entry in snapshot.entries.values())
        return [stored for secrets in by_key for stored in secrets], snapshot.stale

    def _secrets_in(self, folder: str, snapshot: Snapshot) -> list[StoredSecret]:
        """The secrets of a folder: bundles first, so that an entry of the same name comes instead."""
        bundled: list[StoredSecret] = []
        single: list[StoredSecret] = []
        for segment, entry in sorted(snapshot.entries.items()):
            path, name = folder + segment, name_of(segment)
            bundled += secrets_in_bundle(entry, path, name, self._rules.default_events)
            stored = secret_of(entry, path, name, self._rules.default_events)
            if stored is not None:
                single.append(stored)
        return bundled + single

    async def _bundled(self, repo_id: int, name: str) -> StoredSecret | None:
        """The secret of that name that is one key of a larger entry."""
        if "_" not in name:
            return None
        folder = self._folder_of(repo_id)
        segments = [segment for segment in await self._store.list(folder) if name.startswith(f"{name_of(segment)}_")]
        entries = await all_of(self._store.read(folder + segment) for segment in segments)
        for segment, entry in zip(segments, entries, strict=True):
            for stored in secrets_in_bundle(entry, folder + segment, name_of(segment), self._rules.default_events):
                if stored.secret.name == name:
                    return stored
        return None

    async def _check_free(self, entry: Entry, repo_id: int, name: str) -> None:
        if entry.has_value or entry.is_bundle or await self._bundled(repo_id, name):
            raise Conflict("A secret of that name exists already; update it instead.")

    async def _existing(self, repo_id: int, path: str, name: str) -> Entry:
        entry = await self._store.read(path)
        if not entry.has_value:
            if await self._bundled(repo_id, name):
                raise Conflict("This secret is one key of a larger entry in Vault; it can be changed only there.")
            raise _no_such_secret()
        return entry

    def _after(self, entry: Entry, steps: Iterable[Step], path: str, name: str) -> StoredSecret:
        data, metadata = entry.data, entry.metadata
        for step in steps:
            if isinstance(step, PatchMetadata):
                metadata = patched(metadata, step.patch)
            else:
                data = step.data
        after = Entry(entry.version, live=True, data=data, metadata=metadata)
        return stored_value(after, path, name, self._rules.default_events)

    async def _carry_out(self, path: str, entry: Entry, steps: Iterable[Step]) -> None:
        """Do the steps in order; if one of them certainly was not done, take back those before it."""
        done: list[Step] = []
        for step in steps:
            try:
                if isinstance(step, PatchMetadata):
                    await _written(self._store.patch_metadata(path, step.patch))
                else:
                    await _written(self._store.put(path, step.data, cas=entry.version))
            except (Conflict, Denied, Invalid):
                for before in reversed(done):
                    await self._take_back(path, entry, before)
                raise
            done.append(step)

    async def _take_back(self, path: str, entry: Entry, step: Step) -> None:
        """Undo a step, except for what somebody else, an admin, has changed since."""
        if isinstance(step, PatchMetadata):
            now = (await self._store.read(path)).metadata
            undo = {key: was for key, was in step.undo.items() if now.get(key) == step.patch[key]}
            if undo:
                await _written(self._store.patch_metadata(path, undo))
        else:
            await _written(self._store.put(path, entry.data, cas=entry.version + 1))

    def _folder_of(self, repo_id: int) -> str:
        return self._rules.repo.render({"repo_id": str(repo_id)}) or ""

    def _path_of(self, repo_id: int, name: str) -> str:
        return self._folder_of(repo_id) + segment_of(name)


def placeholder_values(request: PipelineRequest) -> dict[str, str]:
    """What each placeholder of a layer stands for; empty where this pipeline has no such thing."""
    repo, pipeline = request.repo, request.pipeline
    return {
        "repo_id": str(repo.id),
        "org_id": str(repo.org_id) if repo.org_id > 0 else "",
        "owner": repo.owner,
        "repo": repo.name,
        "forge_id": str(repo.forge_id) if repo.forge_id > 0 else "",
        "forge_remote_id": repo.forge_remote_id,
        "event": pipeline.event,
        "branch": pipeline.vouched_branch,
    }


async def _written(write: Awaitable[None]) -> None:
    """Await a write. Being cut short in the midst of it leaves its outcome open, which is said."""
    try:
        await write
    except asyncio.CancelledError:
        raise Unavailable("The time was up before Vault had done it; read the secret.", maybe_done=True) from None


def _no_such_secret() -> NotFound:
    return NotFound("There is no such secret.")


def _readable(stored: StoredSecret) -> Secret:
    if stored.unreadable:
        raise Invalid(f"The secret's custom metadata in Vault cannot be read: {stored.unreadable}.")
    return stored.secret
