"""May this pipeline have this secret? Each answer with its reason."""

import re
from dataclasses import dataclass

from woodpecker_vault.entries import NO_EVENT, StoredSecret
from woodpecker_vault.woodpecker import PULL_REQUEST_EVENTS, Pipeline


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a secret is given, and why (not), in words for the operator."""

    reason: str
    given: bool = False


def decide(stored: StoredSecret, pipeline: Pipeline, *, forks_allowed: bool) -> Verdict:
    """Decide about one secret.

    Args:
        stored: the secret and its restrictions.
        pipeline: the one that asks.
        forks_allowed: what holds for entries that do not say so themselves (``secrets.forks``).
    """
    if stored.unreadable:
        return Verdict(f"its restrictions cannot be read: {stored.unreadable}")
    if pipeline.from_fork and not (stored.forks == "allow" or (forks_allowed and stored.forks != "deny")):
        return Verdict("the pipeline comes from a fork")
    if not event_matches(pipeline.event, stored.secret.events):
        return Verdict(f"event {pipeline.event} is not among {', '.join(stored.secret.events)}")
    if stored.branches:
        branch = pipeline.vouched_branch
        if not branch:
            return Verdict(f"it is for certain branches, and event {pipeline.event} has none to rely on")
        if not any(branch_matches(branch, pattern) for pattern in stored.branches):
            return Verdict(f"branch {branch} is not among {', '.join(stored.branches)}")
    return Verdict("allowed", given=True)


def event_matches(event: str, events: tuple[str, ...]) -> bool:
    """Woodpecker's own rule: every kind of pull-request event counts as ``pull_request``.

    So a list with only ``pull_request_closed`` never matches (``pipeline/frontend/yaml/compiler``).
    """
    return event != NO_EVENT and ("pull_request" if event in PULL_REQUEST_EVENTS else event) in events


def branch_matches(branch: str, pattern: str) -> bool:
    """Whether a branch is one that a pattern means.

    As in Woodpecker's ``when: branch``, ``*`` and ``?`` stay within one part of the name, and ``**`` crosses slashes.
    """
    wildcards = {"**/": "(.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    pieces = (wildcards.get(piece) or re.escape(piece) for piece in re.split(r"(\*\*/|\*\*|\*|\?)", pattern))
    return re.fullmatch("".join(pieces), branch, re.DOTALL) is not None
