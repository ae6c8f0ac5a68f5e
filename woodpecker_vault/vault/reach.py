"""May the service's token read every layer, for some repository at least?

The rule, in this order:

1. Vault is asked what the token may do (``sys/capabilities-self``) at paths with made-up ids, which policies for all
   repositories allow, and at those that worked the last time. Where it does not say, because the policy or something on
   the way does not let it, the requests of a pipeline are made instead: a list, and a read of an entry that is not
   there. Those are the truth, and no value is read.
2. Where that is denied, the policy may be for certain repositories only. They are looked for in the rules that Vault
   shows of the token (``sys/internal/ui/resultant-acl``), among the pipelines that asked lately, and in listings; then
   Vault is asked about those. A layer is well if list and read are allowed for one of them; all of them together are
   well if that holds for one and the same repository.
3. What is still denied is denied, with two exceptions, and both only for layers that differ by repository: where Vault
   does not show the rules at all, or where none of those that it shows explains that the token may see the mount (it
   does not show rules with ``+``). Then it is not known, which counts as being well, unless Vault denied the layer to a
   pipeline within the last minute, and still denies it for all that asked lately.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from hvac.exceptions import VaultError
from hvac.utils import format_url

from woodpecker_vault.errors import Denied, Problem, TokenRefused, Unavailable
from woodpecker_vault.paths import Template
from woodpecker_vault.tasks import all_of
from woodpecker_vault.vault.faults import Missing, translated, well_formed
from woodpecker_vault.vault.lately import Lately
from woodpecker_vault.vault.samples import ENTRY, Layer, Question, Rule, Texts, candidates, repository
from woodpecker_vault.vault.transport import Adapter, TokenSource, WithToken

_MOST_REQUESTS = 12
"""Requests of one look beyond the first ones, where Vault does not say what the token may do."""

_MOST_NAMES = 20
"""Names out of a listing that are tried."""

_NO_SUCH_VERSION = 2**31 - 1
"""Of an entry that is read only to see whether that is allowed."""

_NOT_NOW = frozenset({HTTPStatus.PRECONDITION_FAILED, HTTPStatus.TOO_MANY_REQUESTS, 472, 473})
"""What Vault answers while it cannot: that says nothing about what it lets the token do."""


class Hidden(Exception):
    """What was asked about Vault itself is not answered, by a policy or something on the way: secrets still may be."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Whether something is well, and what there is to say about it."""

    ok: bool = True
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Reached:
    """What a look found: about lists, about reads, and whether Vault allowed anything at all."""

    listing: Finding
    reading: Finding
    anything: bool


class Reach:
    """Looks at what the token may read.

    Args:
        adapter: sends requests without a token, in the mount's namespace.
        tokens: where the token comes from.
        mount: the KV v2 mount.
        layers: what is read for every pipeline.
        lately: what pipelines asked for.
    """

    def __init__(
        self, adapter: Adapter, tokens: TokenSource, *, mount: str, layers: Sequence[Template], lately: Lately
    ) -> None:
        self._adapter = adapter
        self._tokens = tokens
        self._mount = mount
        self.layers = [Layer(template) for template in layers]
        self._lately = lately
        self._worked: list[Texts] = []

    async def look(self, *, by_requests: bool = False) -> Reached:
        """What the token may read now; a newer token is tried where this one does not do.

        Args:
            by_requests: whether to make a pipeline's requests, as what Vault says of paths is not enough.

        Raises:
            Problem: Vault cannot be asked.
        """
        reached, denied = await self._once(by_requests=by_requests)
        if denied is None:
            return reached
        token = await self._tokens.current()
        newer = None
        with contextlib.suppress(Problem):  # that there is no other token does not change what this one may do
            newer = await self._tokens.after_refusal(token, f"/v1/{self._mount}/{denied.api_path}")
        if newer is None or newer == token:
            return reached
        reached, denied = await self._once(by_requests=by_requests)
        if denied is None:
            self._tokens.accepted(newer)
        return reached

    async def _once(self, *, by_requests: bool) -> tuple[Reached, Question | None]:
        """What was found, and something that is denied and should not be."""
        look = _Look(self, by_requests=by_requests)
        await look.at([*self._worked, {}])
        if look.whole is None:
            rules, explained = await self._rules()
            asked = [
                texts
                for path in self._lately.paths()
                for layer in self.layers
                if layer.is_folder == path.endswith("/") and (texts := layer.texts_in(path)) is not None
            ]
            await look.at([*asked, *candidates(self.layers, rules or ())])
            if look.whole is None:
                await look.at(await look.listed())
            if look.whole is None:
                return self._found(look, knowable=rules is not None and explained)
        self._worked = look.whole
        return Reached(Finding(), Finding(), anything=True), None

    def _found(self, look: "_Look", *, knowable: bool) -> tuple[Reached, Question | None]:
        denied: dict[str, list[str]] = {"list": [], "read": []}
        unknown: dict[str, list[str]] = {"list": [], "read": []}
        first: Question | None = None
        for layer in self.layers:
            for question in look.denied(layer):
                known = layer.fixed or knowable or self._denied_lately(layer)
                (denied if known else unknown)[question.capability].append(self._shown(layer, question))
                first = first or (question if known else None)
        listing, reading = (_finding(what, denied[what], unknown[what]) for what in ("list", "read"))
        if not any([*denied.values(), *unknown.values()]):
            reading = Finding(ok=False, detail="Each layer may be read for some repository, but all of them for none.")
            first = self.layers[0].read_question({})
        return Reached(listing, reading, anything=any(look.allowed.values())), first

    def _denied_lately(self, layer: Layer) -> bool:
        return any(
            layer.is_folder == path.endswith("/") and layer.texts_in(path) is not None for path in self._lately.denied()
        )

    def _shown(self, layer: Layer, question: Question) -> str:
        path = f"{self._mount}/{question.api_path}"
        return path if layer.fixed else f"{path} (for the layer {layer.template.text}, and others like it)"

    async def asked(self, method: str, url: str, doing: str, **body: Any) -> dict[str, Any]:
        """The answer to a request with the token in use; no other is tried."""
        adapter = WithToken(self._adapter, await self._tokens.current())
        return await asked(adapter, method, url, doing, **body)

    async def _rules(self) -> tuple[list[Rule] | None, bool]:
        """The rules about the mount that Vault shows of the token, and whether they explain that it may see the mount.

        ``None`` if Vault shows none at all.
        """
        doing = "look the token's rules up"
        try:
            answer = await self.asked("get", "/v1/sys/internal/ui/resultant-acl", doing)
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
        answer = await self.asked(
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
        except Missing as missing:
            if missing.document.get("warnings"):
                raise Denied("There is no KV v2 secrets engine there: check secrets.mount.") from missing
            with well_formed(doing):
                if "data" not in missing.document:
                    missing.document["errors"]
            return []
        with well_formed(doing):
            return [str(name) for name in answer["data"]["keys"]] if lists else []


class _Look:
    """One look: the candidates so far, and what of them is allowed. ``whole`` is what works for every layer."""

    def __init__(self, reach: Reach, *, by_requests: bool) -> None:
        self._reach = reach
        self._layers = reach.layers
        self._by_requests = by_requests
        self._found: list[Texts] = []
        self._requests_left: int | None = None
        self.allowed: dict[Question, bool] = {}
        self.whole: list[Texts] | None = None

    async def at(self, found: Sequence[Texts]) -> None:
        """Look at these candidates, too."""
        self._found += found
        await self._ask([question for texts in found for layer in self._layers for question in layer.questions(texts)])
        self.whole = repository(self._layers, self._found, self.allowed)
        if self._requests_left is None:
            self._requests_left = _MOST_REQUESTS

    async def listed(self) -> list[Texts]:
        """Candidates out of listings: entries of folders that may be listed, and the folders in those above."""
        found: list[Texts] = []
        for layer in self._layers:
            may_list = [texts for texts in self._found if layer.is_folder and self._may(layer.list_question(texts))]
            if may_list:
                names = await self._reach.names(layer.list_question(may_list[0]))
                found += [{**may_list[0], ENTRY: name} for name in names if not name.endswith("/")]
            elif parent := layer.parent():
                folder, placeholder = parent
                question = Question("list", folder)
                await self._ask([question])
                if self._may(question):
                    found += [{placeholder: name.rstrip("/")} for name in await self._reach.names(question)]
        return found

    def denied(self, layer: Layer) -> list[Question]:
        """What is not allowed for any candidate, with made-up ids."""
        lists = [texts for texts in self._found if not layer.is_folder or self._may(layer.list_question(texts))]
        if not lists:
            reads = any(self._may(layer.read_question(texts)) for texts in self._found)
            return [layer.list_question({}), *([] if reads else [layer.read_question({})])]
        if not any(self._may(layer.read_question(texts)) for texts in lists):
            return [layer.read_question(lists[0])]
        return []

    def _may(self, question: Question) -> bool:
        return self.allowed.get(question, False)

    async def _ask(self, questions: Sequence[Question]) -> None:
        new = [question for question in dict.fromkeys(questions) if question not in self.allowed]
        if not new:
            return
        if not self._by_requests:
            try:
                self.allowed |= await self._reach.capabilities(new)
            except Hidden:
                self._by_requests = True
            else:
                return
        if self._requests_left is not None:
            new = new[: self._requests_left]
            self._requests_left -= len(new)
        self.allowed |= dict(zip(new, await all_of(map(self._reach.tried, new)), strict=True))


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
    except TokenRefused:
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


def _finding(capability: str, denied: Sequence[str], unknown: Sequence[str]) -> Finding:
    if denied:
        return Finding(ok=False, detail=f"The token's policy lacks {capability} on {'; '.join(denied)}.")
    if unknown:
        return Finding(
            detail=f"{capability} is denied on {'; '.join(unknown)}, but Vault does not show whether the"
            " policy allows others."
        )
    return Finding()
