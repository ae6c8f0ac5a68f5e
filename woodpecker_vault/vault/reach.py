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

from woodpecker_vault.errors import Problem
from woodpecker_vault.paths import Template
from woodpecker_vault.tasks import all_of
from woodpecker_vault.vault.lately import Lately
from woodpecker_vault.vault.permissions import Hidden, Permissions
from woodpecker_vault.vault.samples import ENTRY, Layer, Question, Texts, candidates, repository
from woodpecker_vault.vault.transport import Adapter, TokenSource

_MOST_REQUESTS = 12
"""Requests of one look beyond the first ones, where Vault does not say what the token may do."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Whether something is well, and a detail to show with it."""

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
        self.permissions = Permissions(adapter, tokens, mount)
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
            rules, explained = await self.permissions.rules()
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
            apart = "Each layer may be read for some repository, but all of them for none that is known."
            reading = Finding(ok=not knowable, detail=apart)
            first = self.layers[0].read_question({}) if knowable else None
        return Reached(listing, reading, anything=any(look.allowed.values())), first

    def _denied_lately(self, layer: Layer) -> bool:
        return any(
            layer.is_folder == path.endswith("/") and layer.texts_in(path) is not None for path in self._lately.denied()
        )

    def _shown(self, layer: Layer, question: Question) -> str:
        path = f"{self._mount}/{question.api_path}"
        return path if layer.fixed else f"{path} (for the layer {layer.template.text}, and others like it)"


class _Look:
    """One look: the candidates so far, and what of them is allowed. ``whole`` is what works for every layer."""

    def __init__(self, reach: Reach, *, by_requests: bool) -> None:
        self._permissions = reach.permissions
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
                names = await self._permissions.names(layer.list_question(may_list[0]))
                found += [{**may_list[0], ENTRY: name} for name in names if not name.endswith("/")]
            elif parent := layer.parent():
                folder, placeholder = parent
                question = Question("list", folder)
                await self._ask([question])
                if self._may(question):
                    found += [{placeholder: name.rstrip("/")} for name in await self._permissions.names(question)]
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
                self.allowed |= await self._permissions.capabilities(new)
            except Hidden:
                self._by_requests = True
            else:
                return
        if self._requests_left is not None:
            new = new[: self._requests_left]
            self._requests_left -= len(new)
        self.allowed |= dict(zip(new, await all_of(map(self._permissions.tried, new)), strict=True))


def _finding(capability: str, denied: Sequence[str], unknown: Sequence[str]) -> Finding:
    if denied:
        return Finding(ok=False, detail=f"The token's policy lacks {capability} on {'; '.join(denied)}.")
    if unknown:
        return Finding(
            detail=f"{capability} is denied on {'; '.join(unknown)}, but Vault does not show whether the"
            " policy allows others."
        )
    return Finding()
