"""From settings to a running service: the one file in which everything is put together."""

import asyncio
import logging
import random
import ssl
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from woodpecker_vault import config
from woodpecker_vault.app import Clocks, Exchange, Limits, create_app
from woodpecker_vault.budget import Budget
from woodpecker_vault.caller import Caller
from woodpecker_vault.cli.descriptors import for_connections, open_files
from woodpecker_vault.cli.readiness import with_key
from woodpecker_vault.cli.reloading import Reloads
from woodpecker_vault.keys import KeyFile, Keys, ServerKey
from woodpecker_vault.listener import Bounds, Listener
from woodpecker_vault.paths import PLACEHOLDERS, Template
from woodpecker_vault.pool import Connector
from woodpecker_vault.service import Rules, Service
from woodpecker_vault.signature import Freshness, load_public_key
from woodpecker_vault.sparing import Sparing
from woodpecker_vault.telemetry import Metrics, log_exchange
from woodpecker_vault.tls import authority_files, serving, trusting
from woodpecker_vault.vault.cache import CachedFolders, Memory, Timed, Validated
from woodpecker_vault.vault.connection import Connection, open_session, watched_tls
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
from woodpecker_vault.watched import Watched


class StartError(Exception):
    """The settings make sense, but the service cannot start with them now."""


@asynccontextmanager
async def running(settings: config.Settings, reloads: Reloads | None = None) -> AsyncIterator[str]:
    """The service, listening; the URL it answers at.

    When it ends, it stops listening, answers what is under way, and then lets go of Vault.

    Args:
        settings: all of them.
        reloads: told of everything that can be read again.

    Raises:
        StartError: the port is taken, or a file that was there is not any more.
    """
    reloads = reloads or Reloads()
    connection = _connection(settings.vault)
    try:
        tls = _server_tls(settings.server)
        vault_tls = watched_tls(connection) if connection.uses_tls else None
        woodpecker_tls = _woodpecker_tls(settings.woodpecker) if settings.woodpecker.server_url else None
    except (OSError, ValueError) as error:
        raise StartError(f"a certificate or its key cannot be used: {error}") from error
    for certificates in (tls, vault_tls, woodpecker_tls):
        if certificates is not None:
            reloads.add(certificates.reload)
    async with (
        open_session(connection, vault_tls.current if vault_tls else None) as session,
        aiohttp.ClientSession(connector=Connector(woodpecker_tls.current if woodpecker_tls else None)) as web_session,
    ):
        keys, server_key = _given_keys(settings.woodpecker, web_session)
        reloads.add(keys.reload)
        budget = Budget(settings.server.request_timeout, time.monotonic)
        caller = Caller()
        living = [reloads.live()]
        if server_key is not None:
            await server_key.first()  # so that, usually, the first request finds a key
            living.append(server_key.live(asyncio.sleep))
        async with vault_rooms(session, connection, settings, budget, caller) as vault, _kept_going(living):
            reloads.add(vault.log_in_again)
            runner = web.AppRunner(
                _application(settings, vault, keys, budget, caller),
                shutdown_timeout=settings.server.request_timeout + 1,
            )
            async with _listening(runner, settings, tls) as url:
                yield url


@dataclass(frozen=True, slots=True)
class VaultRooms:
    """What stands between the service and Vault, put together."""

    kv: KV
    fresh: VaultFolders
    answers: Noted
    ready: Health
    log_in_again: Callable[[], Awaitable[None]]


@asynccontextmanager
async def vault_rooms(
    session: aiohttp.ClientSession,
    connection: Connection,
    settings: config.Settings,
    budget: Budget,
    caller: Caller,
) -> AsyncIterator[VaultRooms]:
    """The rooms on one pool of connections, with a token that is kept alive until the block ends."""
    auth, cache, mount = settings.vault.auth, settings.vault.cache, settings.secrets.mount
    patience = Patience(budget, connection.max_retries, random.random, asyncio.sleep)
    sender = Sender(session, connection, patience, caller.headers)
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
    rules = _rules(settings.secrets)
    folders = _sample_folders(rules)
    lately = Lately(time.monotonic)
    impatient = Adapter(sender, connection.namespace, patient=False)
    ready = Health(
        impatient,
        AuthenticatedAdapter(sender, connection.namespace, tokens, patient=False),
        tokens,
        mount=mount,
        reach=Reach(impatient, tokens, mount=mount, layers=rules.layers, lately=lately),
        now=time.monotonic,
    )
    rooms = VaultRooms(kv, fresh, Noted(fresh, lately), ready, tokens.log_in_again)
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


def _application(
    settings: config.Settings, vault: VaultRooms, keys: Keys, budget: Budget, caller: Caller
) -> web.Application:
    locks = Locks(vault.kv, owner=uuid.uuid4().hex, pause=_random_pause)
    metrics = Metrics()

    def observe(exchange: Exchange) -> None:
        log_exchange(exchange)
        metrics.count(exchange)

    return create_app(
        service=Service(vault.kv, vault.fresh, vault.answers, locks.hold, _rules(settings.secrets)),
        keys=keys,
        ready=with_key(vault.ready, keys.missing),
        metrics=metrics.text,
        observe=observe,
        limits=_limits(settings, budget),
        clocks=Clocks(wall=time.time, steady=time.monotonic),
        new_request_id=lambda: uuid.uuid4().hex,
        caller=caller,
    )


def _given_keys(settings: config.Woodpecker, session: aiohttp.ClientSession) -> tuple[Keys, ServerKey | None]:
    server = None
    if settings.server_url:
        server = ServerKey(session, settings.server_url, _text_of(settings.token_file), time.monotonic)
    given = [load_public_key(pem) for pem in settings.public_keys]
    return Keys(given, [KeyFile(path) for path in settings.public_key_files], server), server


@asynccontextmanager
async def _listening(
    runner: web.AppRunner, settings: config.Settings, tls: Watched[ssl.SSLContext] | None
) -> AsyncIterator[str]:
    """The URL at which it listens, until the block ends; then requests in progress are answered."""
    await runner.setup()
    try:
        assert runner.server is not None  # noqa: S101 - it is set up
        most = for_connections(open_files(), settings.vault.max_connections, Bounds().most)
        sparing = Sparing(logging.getLogger(__name__), time.monotonic)
        listener = Listener(runner.server, tls.current if tls else None, Bounds(most=most), sparing)
        server = settings.server
        try:
            host, port = await listener.start(server.host, server.port)
        except OSError as error:
            raise StartError(f"cannot listen on {server.host}:{server.port}: {error.strerror}") from error
        try:
            host = f"[{host}]" if ":" in host else host
            yield f"{'https' if tls else 'http'}://{host}:{port}{server.base_path}"
        finally:
            await listener.stop()
    finally:
        await runner.cleanup()


def _server_tls(settings: config.Server) -> Watched[ssl.SSLContext] | None:
    if not settings.tls_cert:
        return None
    files = [Path(settings.tls_cert), Path(settings.tls_key)]
    return Watched("server.tls_cert or tls_key", lambda: files, lambda: serving(settings.tls_cert, settings.tls_key))


def _woodpecker_tls(settings: config.Woodpecker) -> Watched[ssl.SSLContext]:
    files = authority_files(settings.ca_cert, "")
    return Watched("woodpecker.ca_cert", lambda: files, lambda: trusting(files))


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
        alpha=settings.secrets.alpha,
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
