"""What the operator reads: log lines, one of them for each request. Never a secret's value, a token or a netrc."""

import logging
from http import HTTPStatus
from typing import Any, TextIO

import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.exposition import generate_latest

from woodpecker_vault.app import Exchange

_METHODS = frozenset({"GET", "POST", "PUT", "DELETE"})
_PROBES = frozenset({"/healthz", "/readyz", "/metrics"})


class Metrics:
    """What Prometheus is told: numbers of requests, never what was in them."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "woodpecker_vault_requests", "Requests answered.", ["method", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "woodpecker_vault_request_seconds", "Time until a request was answered.", registry=self._registry
        )
        self._stale = Counter(
            "woodpecker_vault_stale_answers",
            "Answers out of memory, because Vault could not be asked.",
            registry=self._registry,
        )

    def count(self, exchange: Exchange) -> None:
        """Count one request; those that only ask how the service is do not count."""
        if exchange.path not in _PROBES:
            method = exchange.method if exchange.method in _METHODS else "other"
            self._requests.labels(method, str(exchange.status)).inc()
            self._seconds.observe(exchange.seconds)
            if exchange.stale:
                self._stale.inc()

    def text(self) -> bytes:
        """The numbers so far, in Prometheus's text format."""
        return generate_latest(self._registry)


def configure(level: str, style: str, stream: TextIO) -> None:
    """Send every log line of this process to ``stream``.

    Args:
        level: ``debug``, ``info``, ``warning`` or ``error``.
        style: ``console``, ``json``, or ``auto``: a console on a terminal, JSON lines elsewhere.
        stream: where to.
    """
    console = style == "console" or (style == "auto" and stream.isatty())
    renderer: Any = (
        structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback)
        if console
        else structlog.processors.JSONRenderer()
    )
    shared: list[Any] = [
        structlog.stdlib.ExtraAdder(),
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if not console:
        shared.append(structlog.processors.format_exc_info)
    handler = logging.StreamHandler(stream)
    handler.addFilter(_short_http_errors)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.getLogger("asyncio").setLevel(logging.WARNING)


def log_exchange(exchange: Exchange) -> None:
    """The one line about a request, which is its audit record too."""
    fields: dict[str, Any] = {
        "request_id": exchange.request_id,
        "method": exchange.method,
        "path": exchange.path,
        "status": exchange.status,
        "ms": round(exchange.seconds * 1000, 1),
        "repository": exchange.repository or None,
        "repo_id": exchange.repo_id,
        "pipeline": exchange.pipeline,
        "event_kind": exchange.event or None,
        "given": exchange.given,
        "withheld": exchange.withheld,
        "stale": exchange.stale or None,
        "problem": exchange.problem or None,
        "cause": exchange.cause or None,
    }
    level = logging.INFO
    if exchange.path == "/readyz" and exchange.status == HTTPStatus.SERVICE_UNAVAILABLE:
        level = logging.DEBUG  # it is told when it changes, and not at every probe
    elif exchange.status >= HTTPStatus.INTERNAL_SERVER_ERROR or exchange.status == HTTPStatus.FORBIDDEN:
        level = logging.ERROR
    elif exchange.status >= HTTPStatus.BAD_REQUEST:
        level = logging.WARNING
    elif exchange.path in _PROBES:
        level = logging.DEBUG
    logging.getLogger(__name__).log(
        level, "request", extra={key: value for key, value in fields.items() if value is not None}
    )


def _short_http_errors(record: logging.LogRecord) -> bool:
    """A stranger's malformed HTTP is one line, not a traceback with his bytes in it."""
    if record.name == "aiohttp.server" and record.exc_info:
        error = record.exc_info[0]
        record.exc_info = None
        record.exc_text = None
        record.kind = error.__name__ if error else ""
        record.levelno, record.levelname = logging.WARNING, "WARNING"
    return True
