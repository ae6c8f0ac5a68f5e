"""What the operator reads: log lines, one of them for each request. Never a secret's value, a token or a netrc."""

import logging
from http import HTTPStatus
from typing import Any, TextIO

import structlog

from woodpecker_vault.app import Exchange

_PROBES = frozenset({"/healthz", "/readyz"})


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
        "problem": exchange.problem or None,
        "cause": exchange.cause or None,
    }
    level = logging.INFO
    if exchange.status >= HTTPStatus.INTERNAL_SERVER_ERROR or exchange.status == HTTPStatus.FORBIDDEN:
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
