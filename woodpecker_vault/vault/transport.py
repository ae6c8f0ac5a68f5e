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

from woodpecker_vault.vault.redaction import Redaction
from woodpecker_vault.vault.replies import Reply, errors_in
from woodpecker_vault.vault.sending import Sender


class ForeignAnswer(hvac.exceptions.VaultError):  # type: ignore[misc]  # hvac has no types
    """It is not Vault that answered: no other of hvac's errors, which logins and readers take for Vault's decision."""

    wants_tls = False


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
    own exceptions, or :exc:`ForeignAnswer`. What they say is short and holds none of the secrets that were sent.
    Attributes of ours on them: ``status``, ``retry_after`` in seconds, and ``passes``, if it is only for the moment.

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
        patient: bool = True,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Send one request; ``kwargs`` are ``json`` and ``params``, as requests takes them.

        It is tried again only if both this call and the adapter are ``patient``.

        A list is asked for as Vault's own client does, with GET: what stands before Vault may not know the method LIST.
        """
        if method == "list":
            method, url = "get", f"{url}?list=true"
        fields = dict(headers or {})
        if wrap_ttl:
            fields["X-Vault-Wrap-TTL"] = wrap_ttl
        if self._namespace and not url.startswith(("/v1/sys/health", "/v1/sys/seal-status")):
            fields["X-Vault-Namespace"] = self._namespace
        reply = await self._sender.send(method.upper(), url, fields, patient=self._patient and patient, **kwargs)
        if reply.is_foreign and reply.status != HTTPStatus.TOO_MANY_REQUESTS:
            raise _with_status(_foreign(reply, method, url), reply)
        if reply.status < HTTPStatus.MULTIPLE_CHOICES or not raise_exception:
            return reply.document or {}
        redaction = Redaction(fields, kwargs.get("json"))
        error = hvac.exceptions.VaultError.from_status(
            reply.status,
            f"status {reply.status}",
            errors=[redaction.of(", ".join(errors))] if (errors := errors_in(reply.document)) else [],
            method=method,
            url=url,
            json=reply.document,
        )
        raise _with_status(error, reply)


def _foreign(reply: Reply, method: str, url: str) -> ForeignAnswer:
    """Says what it looked like, but not what it said: that may be anything."""
    looks = f"status {reply.status} with {len(reply.body)} bytes of {reply.kind} is not an answer of Vault's"
    error = ForeignAnswer(looks, method=method, url=url)
    error.wants_tls = reply.status == HTTPStatus.BAD_REQUEST and b"HTTPS" in reply.body
    return error


def _with_status(error: Any, reply: Reply) -> Exception:
    error.status, error.retry_after, error.passes = reply.status, reply.retry_after, reply.passes
    raised: Exception = error
    return raised


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
