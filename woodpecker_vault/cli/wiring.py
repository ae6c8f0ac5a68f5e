"""From settings to a running service: the one file in which everything is put together."""

import asyncio
import random
import ssl
import time
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from woodpecker_vault import config
from woodpecker_vault.app import Clocks, Exchange, Limits, create_app
from woodpecker_vault.budget import Budget
from woodpecker_vault.keys import KeyFile, Keys, ServerKey
from woodpecker_vault.paths import PLACEHOLDERS, Template
from woodpecker_vault.service import Rules, Service
from woodpecker_vault.signature import Freshness, load_public_key
from woodpecker_vault.telemetry import Metrics, log_exchange
from woodpecker_vault.vault.cache import CachedFolders, Memory, Timed, Validated
from woodpecker_vault.vault.connection import Connection, open_session
from woodpecker_vault.vault.folders import VaultFolders
from woodpecker_vault.vault.health import Health
from woodpecker_vault.vault.kv import KV
from woodpecker_vault.vault.lately import Lately, Noted
from woodpecker_vault.vault.locks import Locks
from woodpecker_vault.vault.reach import Reach
from woodpecker_vault.vault.sending import Patience, Sender
from woodpecker_vault.vault.shared import SharedReads
from woodpecker_vault.vault.tokens import Tokens
from woodpecker_vault.vault.transport import Adapter, AuthenticatedAdapter

_KEY_ATTEMPTS = 20
_KEY_PAUSE = 0.5


class StartError(Exception):
    """The settings make sense, but the service cannot start with them now."""


@asynccontextmanager
async def running(settings: config.Settings) -> AsyncIterator[str]:
    """The service, listening; the URL it answers at.

    When it ends, it stops listening, answers what is under way, and then lets go of Vault.

    Raises:
        StartError: no public key could be had, or the port is taken.
    """
    async with (
        open_session(connection := _connection(settings.vault)) as session,
        aiohttp.ClientSession() as web_session,
    ):
        keys = await _keys(settings.woodpecker, web_session)
        budget = Budget(settings.server.request_timeout, time.monotonic)
        async with vault_rooms(session, connection, settings, budget) as vault:
            runner = web.AppRunner(
                _application(settings, vault, keys, budget),
                access_log=None,
                auto_decompress=False,  # the digest is of the bytes received
                shutdown_timeout=settings.server.request_timeout + 1,
            )
            await runner.setup()
            try:
                yield await _listen(runner, settings.server)
            finally:
                await runner.cleanup()


@dataclass(frozen=True, slots=True)
class VaultRooms:
    """What stands between the service and Vault, put together."""

    kv: KV
    fresh: VaultFolders
    answers: Noted
    ready: Health


@asynccontextmanager
async def vault_rooms(
    session: aiohttp.ClientSession, connection: Connection, settings: config.Settings, budget: Budget
) -> AsyncIterator[VaultRooms]:
    """The rooms on one pool of connections, with a token that is kept alive until the block ends."""
    auth, cache, mount = settings.vault.auth, settings.vault.cache, settings.secrets.mount
    patience = Patience(budget, connection.max_retries, random.random, asyncio.sleep)
    sender = Sender(session, connection, patience)
    tokens = Tokens(
        Adapter(sender, auth.namespace or connection.namespace),
        auth,
        budget=budget,
        now=time.monotonic,
        sleep=asyncio.sleep,
        jitter=random.random,
    )
    memory = Memory(keep=max(cache.ttl, cache.stale_if_error), max_bytes=cache.max_bytes, now=time.monotonic)
    kv = KV(AuthenticatedAdapter(sender, connection.namespace, tokens), mount, patience, written=memory.written)
    shared = SharedReads(budget)
    fresh = VaultFolders(kv, shared)
    folders = _sample_folders(_rules(settings.secrets))
    lately = Lately(time.monotonic)
    impatient = Adapter(sender, connection.namespace, patient=False)
    ready = Health(
        impatient,
        AuthenticatedAdapter(sender, connection.namespace, tokens, patient=False),
        tokens,
        mount=mount,
        reach=Reach(impatient, tokens, mount=mount, layers=_rules(settings.secrets).layers, lately=lately),
        now=time.monotonic,
    )
    rooms = VaultRooms(kv, fresh, Noted(fresh, lately), ready)
    living = [tokens.live()]
    if cache.mode != "off":
        timed = Timed(fresh, ttl=cache.ttl, now=time.monotonic)
        validated = Validated(kv, fresh, shared, ttl=cache.ttl, now=time.monotonic)
        answers = CachedFolders(
            timed if cache.mode == "ttl" else validated,
            memory,
            stale_if_error=cache.stale_if_error,
            patience=connection.timeout,
            budget=budget,
            now=time.monotonic,
        )
        rooms = replace(rooms, answers=Noted(answers, lately))
        living.append(memory.live(asyncio.sleep))
        if cache.mode == "validated" and folders:
            living.append(validated.introduce(f"{folders[-1]}/", asyncio.sleep))
    try:
        async with _kept_going(living):
            yield rooms
    finally:
        await tokens.end()


@asynccontextmanager
async def _kept_going(living: Iterable[Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    """What goes on in the background until the block ends."""
    tasks = [asyncio.ensure_future(one) for one in living]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _application(settings: config.Settings, vault: VaultRooms, keys: Keys, budget: Budget) -> web.Application:
    locks = Locks(vault.kv, owner=uuid.uuid4().hex, now=time.time, pause=_random_pause)
    metrics = Metrics()

    def observe(exchange: Exchange) -> None:
        log_exchange(exchange)
        metrics.count(exchange)

    return create_app(
        service=Service(vault.kv, vault.fresh, vault.answers, locks.hold, _rules(settings.secrets)),
        keys=keys,
        ready=vault.ready,
        metrics=metrics.text,
        observe=observe,
        limits=_limits(settings, budget),
        clocks=Clocks(wall=time.time, steady=time.monotonic),
        new_request_id=lambda: uuid.uuid4().hex,
    )


async def _keys(settings: config.Woodpecker, session: aiohttp.ClientSession) -> Keys:
    given = [load_public_key(pem) for pem in settings.public_keys]
    files = [KeyFile(path) for path in settings.public_key_files]
    if not settings.server_url:
        return Keys(given, files)
    server = ServerKey(session, settings.server_url, _text_of(settings.token_file), time.monotonic)
    attempts = 1 if given or files else _KEY_ATTEMPTS
    for attempt in range(attempts):
        if await server.first():
            break
        if attempt + 1 < attempts:
            await asyncio.sleep(_KEY_PAUSE)
    keys = Keys(given, files, server)
    if not keys.current():
        raise StartError(
            f"no public key could be had from {settings.server_url}: is it the Woodpecker server, and is it up?"
            " Older releases need woodpecker.token_file."
        )
    return keys


async def _listen(runner: web.AppRunner, settings: config.Server) -> str:
    tls = None
    if settings.tls_cert:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        try:
            tls.load_cert_chain(settings.tls_cert, settings.tls_key)
        except OSError as error:
            raise StartError(f"server.tls_cert and tls_key cannot be used: {error}") from error
    try:
        await web.TCPSite(runner, settings.host, settings.port, ssl_context=tls).start()
    except OSError as error:
        raise StartError(f"cannot listen on {settings.host}:{settings.port}: {error.strerror}") from error
    host, port = runner.addresses[0][:2]
    host = f"[{host}]" if ":" in host else host
    return f"{'https' if tls else 'http'}://{host}:{port}{settings.base_path}"


def _connection(settings: config.Vault) -> Connection:
    return Connection(**settings.model_dump(exclude={"auth", "cache"}))


def _rules(settings: config.Secrets) -> Rules:
    return Rules(
        layers=tuple(map(Template.compile, settings.layers)),
        repo=Template.compile(settings.repo),
        default_events=tuple(settings.default_events),
        forks_allowed=settings.forks == "allow",
        destroy_on_delete=settings.delete == "destroy",
    )


def _limits(settings: config.Settings, budget: Budget) -> Limits:
    return Limits(
        budget=budget,
        max_body_bytes=settings.server.max_body_bytes,
        base_path=settings.server.base_path,
        proxy_strips_base_path=settings.server.proxy_strips_base_path,
        freshness=Freshness(settings.woodpecker.max_age, settings.woodpecker.max_clock_skew),
    )


def _sample_folders(rules: Rules) -> list[str]:
    """A folder of each kind, as if for ids of 1, to ask whether the token may list such a thing."""
    sample = dict.fromkeys(PLACEHOLDERS, "1")
    rendered = (template.render(sample) for template in rules.layers if template.is_folder)
    return [path.rstrip("/") for path in rendered if path]


def _text_of(file: str) -> Callable[[], str]:
    return lambda: Path(file).read_text().strip() if file else ""


async def _random_pause() -> float:
    seconds = random.uniform(0.01, 0.05)  # noqa: S311 - jitter, not cryptography
    await asyncio.sleep(seconds)
    return seconds
