"""The log: lines that parse, one about each request, and nothing secret or foreign in them."""

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from typing_extensions import override

from tests.servers import Admin, Client, Service, pipeline_body
from woodpecker_vault.app import Exchange
from woodpecker_vault.cli.openbao import OpenBao
from woodpecker_vault.telemetry import configure, log_exchange

ESCAPE = "\x1b["


class Terminal(io.StringIO):
    @override
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _own_log() -> Iterator[None]:
    """The log is the process's own: give it back as it was."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield
    root.handlers[:] = before
    root.setLevel(level)


def logged(stream: io.StringIO) -> list[dict[str, Any]]:
    """Every line as the JSON object that it must be."""
    return [json.loads(line) for line in stream.getvalue().splitlines()]


class TestConfigure:
    def test_json_lines_hold_event_level_time_and_fields(self) -> None:
        stream = io.StringIO()
        configure("info", "json", stream)
        before = datetime.now(UTC)
        logging.getLogger("somewhere").info("something happened", extra={"count": 3, "name_of": "x"})
        (line,) = logged(stream)
        time = datetime.fromisoformat(line.pop("timestamp"))
        assert before <= time <= datetime.now(UTC)
        assert line == {"event": "something happened", "level": "info", "count": 3, "name_of": "x"}

    def test_whatever_is_in_a_field_stays_on_its_line(self) -> None:
        stream = io.StringIO()
        configure("info", "json", stream)
        hostile = 'a\nb\r\n{"event": "forged"}\x1b[31m\u2028\x00"\\'
        logging.getLogger("somewhere").info("a line\nbreak", extra={"hostile": hostile})
        assert stream.getvalue().count("\n") == 1
        line = json.loads(stream.getvalue())
        assert (line["event"], line["hostile"]) == ("a line\nbreak", hostile)

    def test_what_json_does_not_know_is_logged_all_the_same(self) -> None:
        stream = io.StringIO()
        configure("info", "json", stream)
        logging.getLogger("somewhere").info("odd", extra={"odd": {1, 2}, "bytes": b"\xff"})
        (line,) = logged(stream)
        assert line["odd"] == "{1, 2}"

    def test_arguments_are_put_into_the_message(self) -> None:
        stream = io.StringIO()
        configure("info", "json", stream)
        logging.getLogger("somewhere").warning("%s of %d", "one", 2)
        (line,) = logged(stream)
        assert line["event"] == "one of 2"

    @pytest.mark.parametrize(
        ("style", "terminal", "expected"),
        [
            ("auto", True, "console"),
            ("auto", False, "json"),
            ("console", True, "console"),
            ("console", False, "console"),
            ("json", True, "json"),
            ("json", False, "json"),
        ],
    )
    def test_auto_is_a_console_on_a_terminal_and_json_elsewhere(
        self, *, style: str, terminal: bool, expected: str
    ) -> None:
        stream = Terminal() if terminal else io.StringIO()
        configure("info", style, stream)
        logging.getLogger("somewhere").info("something happened", extra={"count": 3})
        text = stream.getvalue()
        assert "something happened" in text
        assert text.startswith("{") is (expected == "json")
        assert (ESCAPE in text) is (terminal and expected == "console")

    @pytest.mark.parametrize(
        ("level", "expected"),
        [
            ("debug", ["debug", "info", "warning", "error"]),
            ("info", ["info", "warning", "error"]),
            ("warning", ["warning", "error"]),
            ("error", ["error"]),
        ],
    )
    def test_what_is_below_the_level_is_not_logged(self, level: str, expected: list[str]) -> None:
        stream = io.StringIO()
        configure(level, "json", stream)
        for name in ("debug", "info", "warning", "error"):
            getattr(logging.getLogger("somewhere"), name)("x")
        assert [line["level"] for line in logged(stream)] == expected

    def test_configuring_again_replaces_what_was_before(self) -> None:
        first, second = io.StringIO(), io.StringIO()
        configure("info", "json", first)
        configure("info", "json", second)
        logging.getLogger("somewhere").info("x")
        assert first.getvalue() == ""
        assert len(logged(second)) == 1

    def test_an_exception_is_one_line_of_json_with_its_traceback(self) -> None:
        stream = io.StringIO()
        configure("info", "json", stream)
        try:
            _ = 1 / 0
        except ZeroDivisionError:
            logging.getLogger("somewhere").exception("it failed", extra={"request_id": "r1"})
        (line,) = logged(stream)
        assert line["event"] == "it failed"
        assert line["level"] == "error"
        assert line["request_id"] == "r1"
        assert line["exception"].startswith("Traceback")
        assert line["exception"].endswith("ZeroDivisionError: division by zero")

    def test_an_exceptions_variables_are_shown_nowhere(self) -> None:
        for style, stream in (("json", io.StringIO()), ("console", io.StringIO()), ("console", Terminal())):
            configure("info", style, stream)
            try:
                token = "hvs." + "the-token"
                raise ValueError(str(len(token)))
            except ValueError:
                logging.getLogger("somewhere").exception("it failed")
            assert "ValueError: 13" in stream.getvalue()
            assert "hvs.the-token" not in stream.getvalue()

    def test_malformed_http_is_a_warning_without_traceback_or_its_bytes(self) -> None:
        stream = io.StringIO()
        configure("info", "json", stream)
        try:
            raise ValueError("b'the stranger wrote this'")
        except ValueError:
            logging.getLogger("aiohttp.server").exception("Error handling request")
        (line,) = logged(stream)
        assert (line["event"], line["level"], line["kind"]) == ("Error handling request", "warning", "ValueError")
        assert "stranger" not in stream.getvalue()


def exchange(status: int = 200, **fields: Any) -> Exchange:
    return Exchange("r1", "POST", fields.pop("path", "/secrets"), status=status, **fields)


@dataclass
class Log:
    """A log at debug level."""

    stream: io.StringIO

    def line(self, of: Exchange) -> dict[str, Any]:
        """The one line about this exchange."""
        log_exchange(of)
        (line,) = logged(self.stream)
        return line


class TestLogExchange:
    @pytest.fixture
    def log(self) -> Log:
        stream = io.StringIO()
        configure("debug", "json", stream)
        return Log(stream)

    def test_it_says_who_got_what(self, log: Log) -> None:
        line = log.line(
            exchange(
                seconds=0.01234,
                repository="acme/shop",
                repo_id=1,
                pipeline=12,
                event="push",
                given=["npm_token"],
                withheld={"deploy_key": "event push is not among tag"},
            )
        )
        del line["timestamp"]
        assert line == {
            "event": "request",
            "level": "info",
            "request_id": "r1",
            "method": "POST",
            "path": "/secrets",
            "status": 200,
            "ms": 12.3,
            "repository": "acme/shop",
            "repo_id": 1,
            "pipeline": 12,
            "event_kind": "push",
            "given": ["npm_token"],
            "withheld": {"deploy_key": "event push is not among tag"},
        }

    def test_what_is_not_known_is_left_out(self, log: Log) -> None:
        line = log.line(exchange(401, problem="The request is not signed."))
        assert line["problem"] == "The request is not signed."
        assert not {"repository", "repo_id", "pipeline", "event_kind", "cause"} & line.keys()

    def test_the_cause_is_for_the_operator(self, log: Log) -> None:
        line = log.line(exchange(503, problem="Vault is sealed.", cause="status 503"))
        assert (line["problem"], line["cause"]) == ("Vault is sealed.", "status 503")

    @pytest.mark.parametrize(
        ("status", "path", "level"),
        [
            (200, "/secrets", "info"),
            (201, "/repo/1/secrets", "info"),
            (204, "/repo/1/secrets/x", "info"),
            (200, "/healthz", "debug"),
            (200, "/readyz", "debug"),
            (200, "/healthz/", "info"),
            (400, "/secrets", "warning"),
            (401, "/secrets", "warning"),
            (404, "/healthz/x", "warning"),
            (405, "/healthz", "warning"),
            (409, "/repo/1/secrets", "warning"),
            (403, "/secrets", "error"),
            (500, "/secrets", "error"),
            (503, "/secrets", "error"),
            (503, "/readyz", "debug"),
            (500, "/readyz", "error"),
            (503, "/healthz", "error"),
            (0, "/secrets", "info"),
        ],
    )
    def test_its_level_follows_the_status(self, log: Log, status: int, path: str, level: str) -> None:
        assert log.line(exchange(status, path=path))["level"] == level

    def test_a_console_shows_it_on_one_line(self) -> None:
        stream = io.StringIO()
        configure("info", "console", stream)
        log_exchange(exchange(200, given=["npm_token"], repository="acme/shop"))
        (line,) = stream.getvalue().splitlines()
        assert "npm_token" in line
        assert "acme/shop" in line


class TestLogOfAService:
    async def test_values_tokens_and_netrc_are_never_in_it(
        self, service: Service, client: Client, admin: Admin, bao: OpenBao, repo_id: int
    ) -> None:
        start = len(service.raw_log)
        await admin.put(f"woodpecker/repo/{repo_id}/given", "the-given-value")
        await admin.put(f"woodpecker/repo/{repo_id}/withheld", "the-withheld-value", events="tag")
        await admin.put(f"woodpecker/repo/{repo_id}/unreadable", "the-unreadable-value", events="[")
        await admin.put(f"woodpecker/repo/{repo_id}/bundle", {"user": "the-bundled-value"})
        assert "given" in await client.secrets(repo={"id": repo_id})
        path = f"/repo/{repo_id}/secrets"
        secret = {"name": "written", "value": "the-written-value", "events": ["push"]}
        for method, where, document in (
            ("POST", path, secret),
            ("POST", path, {**secret, "name": "wrong", "events": ["the-unknown-event"]}),
            ("PUT", f"{path}/written", {**secret, "value": "the-updated-value"}),
            ("GET", f"{path}/written", None),
            ("GET", path, None),
            ("POST", path, ["the-misplaced-value"]),
        ):
            reply = await client.send(method, where, document)
        reply = await client.send("POST", "/secrets", body=b'{"secret": "the-broken-value"')
        assert reply.status == 400
        await service.logged(reply.headers["X-Request-Id"])
        text = "".join(service.raw_log[start:])
        assert text.count('"event": "request"') == 8
        for secret_text in ("-value", "netrc-password", bao.token, "woodpecker-ci-extensions"):
            assert secret_text not in text

    async def test_every_line_of_it_is_json(self, service: Service, client: Client) -> None:
        reply = await client.send("GET", "/nothing")
        await service.logged(reply.headers["X-Request-Id"])
        assert len(service.log) == len(service.raw_log) > 0

    async def test_probes_are_not_in_it_at_info(self, service: Service, client: Client) -> None:
        start = len(service.raw_log)
        probe = await client.raw("GET", "/healthz", None, {})
        assert probe.status == 200
        reply = await client.send("GET", "/nothing")
        await service.logged(reply.headers["X-Request-Id"])
        assert probe.headers["X-Request-Id"] not in "".join(service.raw_log[start:])

    @pytest.mark.parametrize(
        ("garbage", "count"),
        [
            # These two are what port scanners and misdirected TLS clients send: not even worth a line.
            (b"STRANGERS-BYTES\r\n\r\n", 0),
            (b"\x16\x03\x01\x02\x00\x01STRANGERS-BYTES\r\n\r\n", 0),
            (b"GET /secrets HTTP/1.1\r\nSTRANGERS-BYTES\r\n\r\n", 1),
            (b"GET /secrets HTTP/9.9\r\nHost: STRANGERS-BYTES\r\n\r\n", 1),
            (b"POST /secrets HTTP/1.1\r\nHost: h\r\nContent-Length: STRANGERS-BYTES\r\n\r\n", 1),
            (b"GET /secrets HTTP/1.1\r\nHost: h\r\nX: " + b"STRANGERS-BYTES" * 5000 + b"\r\n\r\n", 1),
        ],
        ids=["no HTTP", "TLS", "no header", "no version", "no length", "too long a header"],
    )
    async def test_malformed_http_is_at_most_one_line_without_traceback(
        self, service: Service, client: Client, garbage: bytes, count: int
    ) -> None:
        start = len(service.raw_log)
        host, port = service.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(garbage)
        answer = await asyncio.wait_for(reader.read(), 30)
        writer.close()
        assert b" 400 " in answer.partition(b"\r\n")[0]
        # What was said about it is complete when a later request has been logged.
        reply = await client.send("POST", "/secrets", pipeline_body())
        await service.logged(reply.headers["X-Request-Id"])
        lines = [json.loads(line) for line in service.raw_log[start:]]
        assert "STRANGERS-BYTES" not in json.dumps(lines)
        about_it = [line for line in lines if line.get("request_id") != reply.headers["X-Request-Id"]]
        assert len(about_it) == count
        for line in about_it:
            assert (line["event"], line["level"]) == ("Error handling request from 127.0.0.1", "warning")
            assert line["kind"]
            assert "exception" not in line
