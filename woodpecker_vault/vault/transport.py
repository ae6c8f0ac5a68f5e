"""hvac's requests as coroutines.

hvac builds URLs and payloads and hands them to an *adapter* (``hvac.adapters.Adapter``, its own extension point). With
an adapter whose ``request`` is a coroutine, hvac's API methods return awaitables: one connection pool, many reads at
once, no thread.
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Protocol

import hvac.adapters
import hvac.exceptions
from typing_extensions import override

from woodpecker_vault import exact_json
from woodpecker_vault.vault.sending import Sender


class TokenSource(Protocol):
    """Where requests get their token from."""

    async def current(self) -> str:
        """The token to use now, logging in first if there is none."""

    async def after_refusal(self, refused: str, url: str) -> str | None:
        """A different token than the one Vault just answered 403 to, if that may help."""

    def accepted(self, token: str) -> None:
        """Take note that a token given after a refusal did help."""


class Adapter(hvac.adapters.Adapter):  # type: ignore[misc]  # hvac has no types
    """One request of hvac's, as a coroutine, without a token of its own.

    ``request`` returns the JSON document of an answer, an empty one where the answer has none, and raises hvac's
    own exceptions.

    Args:
        sender: sends it.
        namespace: Vault's namespace, or empty for the root namespace.
        patient: whether what fails is tried again.
    """

    def __init__(self, sender: Sender, namespace: str = "", *, patient: bool = True) -> None:
        self._sender = sender
        self._namespace = namespace
        self._patient = patient

    def get_login_token(self, response: Mapping[str, Any]) -> str:
        """The token that a login's answer holds."""
        token: str = response["auth"]["client_token"]
        return token

    async def login(self, url: str, *, json: object = None, **_: Any) -> dict[str, Any]:
        """Send a login. Its token is the caller's to keep, its TLS (``cert``, ``verify``) that of the session."""
        return await self.request("post", url, json=json)

    async def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        *,
        raise_exception: bool = True,
        wrap_ttl: str | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Send one request; ``kwargs`` are ``json`` and ``params``, as requests takes them."""
        fields = dict(headers or {})
        if wrap_ttl:
            fields["X-Vault-Wrap-TTL"] = wrap_ttl
        if self._namespace and not url.startswith(("/v1/sys/health", "/v1/sys/seal-status")):
            fields["X-Vault-Namespace"] = self._namespace
        reply = await self._sender.send(method.upper(), url, fields, patient=self._patient, **kwargs)
        document = _document(reply.body)
        if reply.status < HTTPStatus.MULTIPLE_CHOICES or not raise_exception:
            if document is None and reply.status == HTTPStatus.OK:
                raise hvac.exceptions.UnexpectedError(
                    "the answer is not JSON: this is no Vault", method=method, url=url
                )
            return document or {}
        error = hvac.exceptions.VaultError.from_status(
            reply.status,
            f"status {reply.status}",
            errors=[str(error) for error in _list_of((document or {}).get("errors"))],
            method=method,
            url=url,
            text=reply.body[:200].decode(errors="replace"),
            json=document,
        )
        error.status, error.retry_after = reply.status, reply.retry_after
        raise error


class WithToken(Adapter):
    """The same, with this one token, whatever becomes of it."""

    def __init__(self, adapter: Adapter, token: str) -> None:
        self._adapter = adapter
        self._token = token

    @override
    async def request(
        self, method: str, url: str, headers: Mapping[str, str] | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Send one request with the token."""
        return await self._adapter.request(method, url, {**(headers or {}), **_shown(self._token)}, **kwargs)


class AuthenticatedAdapter(Adapter):
    """The same, with the service's token; when Vault refuses it and another may help, the request is repeated once."""

    def __init__(self, sender: Sender, namespace: str, tokens: TokenSource, *, patient: bool = True) -> None:
        super().__init__(sender, namespace, patient=patient)
        self._tokens = tokens

    @override
    async def request(
        self, method: str, url: str, headers: Mapping[str, str] | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Send one request with the current token."""
        token = await self._tokens.current()
        try:
            return await super().request(method, url, {**(headers or {}), **_shown(token)}, **kwargs)
        except hvac.exceptions.Forbidden:
            # Where an agent or proxy adds its token, there is no other, and its policy denies this.
            other = await self._tokens.after_refusal(token, url) if token else None
            if other is None:
                raise
        try:
            answer = await super().request(method, url, {**(headers or {}), **_shown(other)}, **kwargs)
        except hvac.exceptions.VaultError as error:
            if not isinstance(error, hvac.exceptions.Forbidden):
                self._tokens.accepted(other)
            raise
        self._tokens.accepted(other)
        return answer


def _shown(token: str) -> dict[str, str]:
    """The header with the token; none if it is empty, so that an agent or proxy on the way adds its own."""
    return {"X-Vault-Token": token} if token else {}


def _list_of(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _document(body: bytes) -> dict[str, Any] | None:
    """The JSON object in a body; ``None`` if there is none."""
    try:
        document = exact_json.loads(body.decode())
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None
