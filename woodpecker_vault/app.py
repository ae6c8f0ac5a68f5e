"""HTTP: routes, one middleware that verifies, one that answers errors. Decides nothing else."""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol
from urllib.parse import unquote

from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from woodpecker_vault import woodpecker
from woodpecker_vault.budget import Budget
from woodpecker_vault.caller import Caller
from woodpecker_vault.errors import (
    BadRequest,
    MethodNotAllowed,
    NotFound,
    Problem,
    SignatureRefused,
    TooLarge,
    Unavailable,
    UnknownKey,
)
from woodpecker_vault.paths import name_from_url
from woodpecker_vault.replay import Memory
from woodpecker_vault.service import Service
from woodpecker_vault.signature import Freshness, SignedHead, verify_body, verify_head

log = logging.getLogger(__name__)

REQUEST_ID = "X-Request-Id"


class KeySource(Protocol):
    """Where the public keys come from."""

    def current(self) -> list[Ed25519PublicKey]:
        """The keys that may verify now."""

    def confirm(self, key: Ed25519PublicKey) -> None:
        """Take note that a request verified under this key."""

    async def refresh(self) -> bool:
        """Look for a new key; whether there is one."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a request may take: time, bytes, and the path it must come under."""

    budget: Budget
    max_body_bytes: int = 16 * 1024 * 1024
    base_path: str = ""
    proxy_strips_base_path: bool = False
    alpha: Literal["off", "read", "write"] = "write"
    freshness: Freshness = field(default_factory=lambda: Freshness(max_age=15.0, max_clock_skew=5.0))


@dataclass(slots=True)
class Exchange:
    """One request and what became of it: what a log line, an audit record or a metric is made of. No values."""

    request_id: str
    method: str
    path: str
    status: int = 0
    seconds: float = 0.0
    repository: str = ""
    repo_id: int | None = None
    pipeline: int | None = None
    event: str = ""
    given: list[str] = field(default_factory=list)
    withheld: dict[str, str] = field(default_factory=dict)
    stale: bool = False
    problem: str = ""
    cause: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """A status and a JSON body."""

    status: int
    body: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Clocks:
    """``wall``: seconds since the epoch. ``steady``: seconds of a clock that never goes back."""

    wall: Callable[[], float]
    steady: Callable[[], float]


Readiness = Callable[[], Awaitable[tuple[bool, Mapping[str, Any]]]]
EXCHANGE = web.RequestKey("exchange", Exchange)
BODY = web.RequestKey("body", bytes)
SIGNATURE = web.RequestKey("signature", bytes)

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def create_app(
    *,
    service: Service,
    keys: KeySource,
    ready: Readiness,
    metrics: Callable[[], bytes],
    observe: Callable[[Exchange], None],
    limits: Limits,
    clocks: Clocks,
    new_request_id: Callable[[], str],
    caller: Caller,
) -> web.Application:
    """The application with all its routes.

    Args:
        service: the use cases.
        keys: the public keys.
        ready: whether Vault is usable, with a document that says what is not.
        metrics: the numbers so far, as Prometheus reads them.
        observe: told of every exchange when it is over.
        limits: what a request may take.
        clocks: the time.
        new_request_id: an id for a request, unlike any other.
        caller: told for whom the rest of the house works.
    """
    open_paths = frozenset({"/healthz", "/readyz", "/metrics"})
    guard = _Guard(keys, limits, clocks)
    app = web.Application(
        middlewares=[
            _answering(limits, clocks, observe, new_request_id, caller),
            _verifying(guard, open_paths),
        ],
        client_max_size=limits.max_body_bytes,
    )
    base = "" if limits.proxy_strips_base_path else limits.base_path
    routes = _Routes(service, ready, metrics, caller)
    reading = _alpha(served=limits.alpha != "off")
    writing = _alpha(served=limits.alpha == "write")
    one, many = base + r"/repo/{repo_id:[^/]*}/secrets/{name:[^/]*}", base + r"/repo/{repo_id:[^/]*}/secrets"
    app.router.add_routes(
        [
            web.get("/healthz", routes.healthz, allow_head=False),
            web.get("/readyz", routes.readyz, allow_head=False),
            web.get("/metrics", routes.metrics, allow_head=False),
            web.post(base + "/secrets", routes.pipeline_secrets, expect_handler=_expect),
            web.get(many, reading(routes.list_secrets), allow_head=False, expect_handler=_expect),
            web.post(many, writing(guard.once(routes.create_secret)), expect_handler=_expect),
            web.get(one, reading(routes.get_secret), allow_head=False, expect_handler=_expect),
            web.put(one, writing(guard.once(routes.update_secret)), expect_handler=_expect),
            web.delete(one, writing(guard.once(routes.delete_secret)), expect_handler=_expect),
        ]
    )
    return app


class _Routes:
    """What each route does, from a verified request to an answer."""

    def __init__(self, service: Service, ready: Readiness, metrics: Callable[[], bytes], caller: Caller) -> None:
        self._service = service
        self._caller = caller
        self._ready = ready
        self._metrics = metrics

    async def healthz(self, _request: web.Request) -> web.Response:
        return _json_response(200, {"status": "ok"})

    async def readyz(self, _request: web.Request) -> web.Response:
        ready, document = await self._ready()
        return _json_response(200 if ready else 503, document)

    async def metrics(self, _request: web.Request) -> web.Response:
        return web.Response(body=self._metrics(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    async def pipeline_secrets(self, request: web.Request) -> web.Response:
        asked = woodpecker.PipelineRequest.from_json(request[BODY])
        exchange = request[EXCHANGE]
        exchange.repository, exchange.repo_id = asked.repo.full_name, asked.repo.id
        exchange.pipeline, exchange.event = asked.pipeline.number, asked.pipeline.event
        self._caller.is_pipeline(
            asked.repo.full_name, asked.pipeline.number, asked.pipeline.event, asked.pipeline.branch
        )
        decision = await self._service.pipeline_secrets(asked)
        given = [one.stored.secret for one in decision.secrets if one.verdict.given]
        exchange.given = [secret.name for secret in given]
        exchange.withheld = {
            one.stored.secret.name: one.verdict.reason for one in decision.secrets if not one.verdict.given
        }
        exchange.stale = decision.stale
        return _response(Answer(200, woodpecker.secrets_answer(given)))

    async def list_secrets(self, request: web.Request) -> web.Response:
        repo_id = _repo_id(request)
        page = woodpecker.Page.from_query(request.query.get("page"), request.query.get("perPage"))
        secrets = page.of(await self._service.list_secrets(repo_id))
        request[EXCHANGE].given = [secret.name for secret in secrets]
        return _response(Answer(200, woodpecker.secret_list_answer(repo_id, secrets)))

    async def get_secret(self, request: web.Request) -> web.Response:
        repo_id = _repo_id(request)
        secret = await self._service.get_secret(repo_id, _name(request))
        request[EXCHANGE].given = [secret.name]
        return _response(Answer(200, woodpecker.secret_answer(repo_id, secret)))

    async def create_secret(self, request: web.Request) -> Answer:
        repo_id = _repo_id(request)
        body = woodpecker.SecretBody.from_json(request[BODY])
        secret = await self._service.create_secret(repo_id, body)
        return Answer(201, woodpecker.secret_answer(repo_id, secret))

    async def update_secret(self, request: web.Request) -> Answer:
        repo_id, name = _repo_id(request), _name(request)
        body = woodpecker.SecretBody.from_json(request[BODY])
        secret = await self._service.update_secret(repo_id, name, body)
        return Answer(200, woodpecker.secret_answer(repo_id, secret))

    async def delete_secret(self, request: web.Request) -> Answer:
        await self._service.delete_secret(_repo_id(request), _name(request))
        return Answer(204)


class _Guard:
    """Lets only verified requests through, and each write only once."""

    def __init__(self, keys: KeySource, limits: Limits, clocks: Clocks) -> None:
        self._keys = keys
        self._limits = limits
        self._clocks = clocks
        lifetime = limits.freshness.max_age + limits.freshness.max_clock_skew
        self._memory: Memory[Answer] = Memory(lifetime=lifetime)
        self._under_way: dict[bytes, asyncio.Task[Answer]] = {}

    async def verify(self, request: web.Request) -> None:
        """Verify the head, then read the body and verify that; raise what is wrong."""
        target = request.raw_path
        if self._limits.proxy_strips_base_path:
            target = self._limits.base_path + target
        head = await self._verified_head(request, target)
        if (request.content_length or 0) > self._limits.max_body_bytes:
            raise TooLarge(self._limits.max_body_bytes)
        if request.headers.get("Expect", "").lower() == "100-continue":
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0  # that was not the answer yet
        try:
            body = await request.read()
        except web.HTTPRequestEntityTooLarge:
            raise TooLarge(self._limits.max_body_bytes) from None
        verify_body(head, body)
        self._memory.admit(head.signature, request.method, target, self._clocks.steady())
        self._keys.confirm(head.key)
        request[BODY] = body
        request[SIGNATURE] = head.signature

    async def _verified_head(self, request: web.Request, target: str) -> SignedHead:
        def attempt() -> SignedHead:
            return verify_head(
                method=request.method,
                target=target,
                headers=request.headers.items(),
                keys=self._keys.current(),
                now=self._clocks.wall(),
                freshness=self._limits.freshness,
            )

        try:
            return attempt()
        except UnknownKey:
            if not await self._keys.refresh():
                raise
            return attempt()

    def once(self, write: Callable[[web.Request], Awaitable[Answer]]) -> _Handler:
        """A handler that does a write once for each signature, and gives a repeat the answer of the first."""

        async def handler(request: web.Request) -> web.Response:
            signature = request[SIGNATURE]
            answer = self._memory.recall(signature)
            if answer is None:
                task = self._under_way.get(signature)
                if task is None:
                    task = asyncio.ensure_future(self._in_time(write(request)))
                    self._under_way[signature] = task
                    task.add_done_callback(lambda done: self._written(signature, done))
                answer = await asyncio.shield(task)
            return _response(answer)

        return handler

    async def _in_time(self, writing: Awaitable[Answer]) -> Answer:
        async with asyncio.timeout(self._limits.budget.seconds):
            return await writing

    def _written(self, signature: bytes, task: asyncio.Task[Answer]) -> None:
        del self._under_way[signature]
        if not task.cancelled() and task.exception() is None:
            answer = task.result()
            self._memory.keep(signature, answer, len(answer.body))
            # So that values leave memory even if no request comes after this one.
            asyncio.get_running_loop().call_later(
                self._memory.lifetime + 1, lambda: self._memory.forget(self._clocks.steady())
            )


async def _expect(_request: web.Request) -> None:
    """Promise nothing: a stranger is not asked for his body. :meth:`_Guard.verify` asks for it when it is time."""


def _alpha(*, served: bool) -> Callable[[_Handler], _Handler]:
    """For a route of the alpha form: nothing where it is switched off, and only what was signed for this form."""

    def wrapped(handler: _Handler) -> _Handler:
        async def checked(request: web.Request) -> web.StreamResponse:
            if not served:
                raise NotFound("This part of the alpha form is switched off: see secrets.alpha.")
            woodpecker.check_made_for_alpha(request.method, request[BODY])
            return await handler(request)

        return checked

    return wrapped


def _verifying(guard: _Guard, open_paths: frozenset[str]) -> Any:
    @web.middleware
    async def middleware(request: web.Request, handler: _Handler) -> web.StreamResponse:
        if request.rel_url.raw_path not in open_paths:
            await guard.verify(request)
        return await handler(request)

    return middleware


def _answering(
    limits: Limits,
    clocks: Clocks,
    observe: Callable[[Exchange], None],
    new_request_id: Callable[[], str],
    caller: Caller,
) -> Any:
    @web.middleware
    async def middleware(request: web.Request, handler: _Handler) -> web.StreamResponse:
        started = clocks.steady()
        exchange = Exchange(new_request_id(), request.method, _shown_path(request, limits.base_path))
        request[EXCHANGE] = exchange
        try:
            try:
                with limits.budget.begun(), caller.begun(exchange.request_id):
                    async with asyncio.timeout(limits.budget.seconds):
                        response = await handler(request)
            except Exception as error:  # noqa: BLE001 - whatever it is, the caller gets an answer
                problem = _problem(error, request)
                exchange.problem, exchange.cause = problem.detail, problem.cause
                response = _problem_response(problem, exchange.request_id)
            exchange.status = response.status
            response.headers[REQUEST_ID] = exchange.request_id
            return response
        finally:
            exchange.seconds = clocks.steady() - started
            asyncio.get_running_loop().call_soon(observe, exchange)  # the answer does not wait for the log

    return middleware


def _shown_path(request: web.Request, base_path: str) -> str:
    """The path for the log, without ``server.base_path`` however it is spelled: whoever knows that may come closer."""
    path = request.rel_url.raw_path
    if not base_path:
        return path
    shown = path.replace(base_path, "")
    decoded = unquote(shown)
    return decoded.replace(base_path, "") if base_path in decoded else shown


def _problem(error: Exception, request: web.Request) -> Problem:
    """An error as the caller is told of it."""
    match error:
        case Problem():
            return error
        case TimeoutError():
            return Unavailable(
                "Vault, or the rest of the request, did not come within server.request_timeout.",
                cause="the time was up",
            )
        case web.HTTPMethodNotAllowed():
            return MethodNotAllowed(request.method, set(error.allowed_methods))
        case web.HTTPNotFound():
            return NotFound("There is no such route; check the endpoint's path and server.base_path.")
        case web.HTTPException() | web.RequestPayloadError() | ConnectionError():
            return BadRequest("The request did not arrive whole.", cause=str(error))
        case _:
            log.error(
                "a request failed unexpectedly",
                exc_info=error,
                extra={"request_id": request[EXCHANGE].request_id},
            )
            return Problem("The service failed unexpectedly; its log says more under this request_id.")


def _problem_response(problem: Problem, request_id: str) -> web.Response:
    """RFC 9457."""
    response = _json_response(
        problem.status,
        {
            "type": "about:blank",
            "title": problem.title,
            "status": problem.status,
            "detail": problem.detail,
            "request_id": request_id,
        },
        content_type="application/problem+json",
    )
    if isinstance(problem, Unavailable):
        response.headers["Retry-After"] = str(problem.retry_after)
    if isinstance(problem, SignatureRefused):
        response.headers["WWW-Authenticate"] = "Signature"
    if isinstance(problem, MethodNotAllowed):
        response.headers["Allow"] = ", ".join(sorted(problem.allowed))
    return response


def _response(answer: Answer) -> web.Response:
    response = web.Response(status=answer.status, body=answer.body or None)
    response.headers["Cache-Control"] = "no-store"
    if answer.body:
        response.content_type = "application/json"
    return response


def _json_response(status: int, document: Mapping[str, Any], content_type: str = "application/json") -> web.Response:
    return web.Response(status=status, body=json.dumps(document).encode(), content_type=content_type)


def _repo_id(request: web.Request) -> int:
    repo_id = woodpecker.repo_id_from_url(request.match_info["repo_id"])
    request[EXCHANGE].repo_id = repo_id
    return repo_id


def _name(request: web.Request) -> str:
    # aiohttp has decoded its match already, leniently; the raw segment is decoded strictly.
    return name_from_url(request.rel_url.raw_path.rpartition("/")[2])
