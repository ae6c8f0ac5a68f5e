"""What Vault lets the token do: what it says of that, and what it shows by answering."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from hvac.exceptions import VaultError
from hvac.utils import format_url

from woodpecker_vault.errors import Denied, NoNamespace, Problem, TokenRefused, Unavailable
from woodpecker_vault.vault.faults import Missing, translated, well_formed
from woodpecker_vault.vault.samples import Question, Rule
from woodpecker_vault.vault.transport import Adapter, TokenSource, WithToken

_MOST_NAMES = 20
"""Names out of a listing that are tried."""

_NO_SUCH_VERSION = 2**31 - 1
"""Of an entry that is read only to see whether that is allowed."""

_NOT_NOW = frozenset({HTTPStatus.PRECONDITION_FAILED, HTTPStatus.TOO_MANY_REQUESTS, 472, 473})
"""What Vault answers while it cannot: that says nothing about what it lets the token do."""


class Hidden(Exception):
    """What was asked about Vault itself is not answered, by a policy or something on the way: secrets still may be."""


class Permissions:
    """Asks with the token in use, and with no other.

    Args:
        adapter: sends requests without a token, in the mount's namespace.
        tokens: where the token comes from.
        mount: the KV v2 mount.
    """

    def __init__(self, adapter: Adapter, tokens: TokenSource, mount: str) -> None:
        self._adapter = adapter
        self._tokens = tokens
        self._mount = mount

    async def rules(self) -> tuple[list[Rule] | None, bool]:
        """The rules about the mount that Vault shows of the token, and whether they explain that it may see the mount.

        ``None`` if Vault shows none at all.
        """
        doing = "look the token's rules up"
        try:
            answer = await self._asked("get", "/v1/sys/internal/ui/resultant-acl", doing)
            with well_formed(doing):
                found = answer["data"]
                shown = [
                    (path, glob, set(rule["capabilities"]) - {"deny"})
                    for kind, glob in (("exact_paths", False), ("glob_paths", True))
                    for path, rule in (found.get(kind) or {}).items()
                ]
        except (Hidden, Unavailable):
            return None, False
        rules = []
        explained = False
        for path, glob, capabilities in shown:
            for kind, capability in (("data", "read"), ("metadata", "list")):
                _, marker, rest = f"/{path}".partition(f"/{self._mount}/{kind}/")
                if marker and capability in capabilities:
                    rules.append(Rule(rest, glob))
            mount = f"{self._mount}/"
            about = f"/{mount}" in f"/{path}" or (glob and mount.startswith(path)) or "+" in path
            explained = explained or (about and bool(capabilities))
        return rules, explained

    async def capabilities(self, questions: Sequence[Question]) -> dict[Question, bool]:
        """What Vault says that the token may do.

        Raises:
            Hidden: it does not say.
        """
        doing = "look the capabilities up"
        paths = {question: f"{self._mount}/{question.api_path}" for question in questions}
        answer = await self._asked(
            "post", "/v1/sys/capabilities-self", doing, json={"paths": sorted(set(paths.values()))}
        )
        try:
            with well_formed(doing):
                found = answer["data"]
                return {
                    question: bool({question.capability, "root"} & set(found[path])) for question, path in paths.items()
                }
        except Unavailable as problem:
            raise Hidden(problem.cause) from problem

    async def tried(self, question: Question) -> bool:
        """Whether a pipeline's request is answered."""
        try:
            await self._requested(question)
        except Denied:
            return False
        return True

    async def names(self, question: Question) -> list[str]:
        """The names in a folder; none if it may not be listed after all."""
        try:
            return (await self._requested(question))[:_MOST_NAMES]
        except Denied:
            return []

    async def _asked(self, method: str, url: str, doing: str, **body: Any) -> dict[str, Any]:
        adapter = WithToken(self._adapter, await self._tokens.current())
        return await asked(adapter, method, url, doing, **body)

    async def _requested(self, question: Question) -> list[str]:
        """Make a pipeline's request; the names, if it is for a list.

        Raises:
            Denied: by policy, or because there is no KV v2 mount.
            Unavailable: Vault does not answer, or something else does.
        """
        lists = question.capability == "list"
        doing = f"{question.capability} {question.path}"
        adapter = WithToken(self._adapter, await self._tokens.current())
        # As a pipeline's own request: Vault adds the slash to what it lists.
        url = format_url("/v1/{mount}/{path}", mount=self._mount, path=question.api_path.rstrip("/"))
        params = None if lists else {"version": _NO_SUCH_VERSION}
        try:
            with translated(doing):
                answer = await adapter.request("list" if lists else "get", url, params=params)
        except Missing:
            return []
        with well_formed(doing):
            return [str(name) for name in answer["data"]["keys"]] if lists else []


async def asked(adapter: Adapter, method: str, url: str, doing: str, **body: Any) -> dict[str, Any]:
    """The answer to a question about Vault itself.

    Raises:
        Hidden: something answered, but not that.
        TokenRefused: the token is not valid.
        Problem: Vault cannot be asked now.
    """
    try:
        with translated(doing):
            return await adapter.request(method, url, **body)
    except (NoNamespace, TokenRefused):
        raise
    except Denied as problem:
        raise Hidden(problem.cause) from problem
    except Missing as missing:
        raise Hidden(f"{doing}: not found") from missing
    except Problem as problem:
        error = problem.__cause__
        status = getattr(error, "status", None) or HTTPStatus.OK
        if isinstance(error, VaultError) and status < HTTPStatus.INTERNAL_SERVER_ERROR and status not in _NOT_NOW:
            raise Hidden(problem.cause) from problem
        raise
