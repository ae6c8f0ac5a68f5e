"""Woodpecker's side of the wire: its requests from bytes, its secrets to bytes, and its own rules for both.

Models follow ``server/model`` of Woodpecker 3.14 to 3.17. Fields come and go between its releases, so only what is
needed is read, and everything else, the ``netrc`` above all, is dropped while parsing.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from woodpecker_vault.errors import BadRequest, Invalid, SignatureRefused

EVENTS = (
    "push",
    "pull_request",
    "pull_request_closed",
    "pull_request_metadata",
    "tag",
    "release",
    "deployment",
    "cron",
    "manual",
)
"""Every event that Woodpecker knows (``server/model/const.go``)."""

PULL_REQUEST_EVENTS = frozenset({"pull_request", "pull_request_closed", "pull_request_metadata"})

_EVENTS_WITH_VOUCHED_BRANCH = frozenset({"push", "cron"})
"""Elsewhere the branch is the caller's choice (manual), inherited (deployment), typed by whoever made the release
(release) or missing (tag). A pull request's is looked for in ``refspec``."""

# Woodpecker's own pattern (``server/model/secret.go``), but a tag may also hold dots, as Docker's may: a secret for
# ``alpine:3.20`` works in a pipeline, only Woodpecker's form for database secrets refuses it.
_IMAGE = re.compile(
    r"([\w.-]+(:\d+)?/)?([\w.-][\w./-]*/)?[\w.-]+(:[\w.-]+)?(@sha256:[a-f\d]{64})?",
    re.ASCII,
)

_MAX_ID = 2**63 - 1


class _Wire(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", frozen=True, hide_input_in_errors=True)


class Repo(_Wire):
    """The repository that a pipeline belongs to."""

    id: Annotated[int, Field(gt=0, le=_MAX_ID)]
    org_id: int = 0
    forge_id: int = 0
    forge_remote_id: str = ""
    owner: str = ""
    name: str = ""
    full_name: str = ""


class Pipeline(_Wire):
    """The pipeline that asks for secrets."""

    number: int = 0
    event: str
    branch: str = ""
    refspec: str = ""
    from_fork: bool = False

    @property
    def vouched_branch(self) -> str:
        """The branch, where the forge vouches for it. Empty elsewhere.

        A pull request's is its target, out of ``refspec`` (``source:target``): ``branch`` is the source on some forges.
        No branch's name can hold a colon (git check-ref-format).
        """
        if self.event in PULL_REQUEST_EVENTS:
            source, colon, target = self.refspec.partition(":")
            return target if source and colon and ":" not in target else ""
        return self.branch if self.event in _EVENTS_WITH_VOUCHED_BRANCH else ""


class PipelineRequest(_Wire):
    """The body of the released form: ``{"repo": …, "pipeline": …, "netrc": …?}`` without the netrc."""

    repo: Repo
    pipeline: Pipeline

    @classmethod
    def from_json(cls, body: bytes) -> "PipelineRequest":
        """Read a verified body.

        Raises:
            BadRequest: it is no such JSON document.
        """
        return _parse(cls, body)


class SecretBody(_Wire):
    """The body of the alpha form's writes. What is absent is told apart from what is ``null``."""

    name: str | None = None
    value: SecretStr | None = None
    images: list[str] | None = None
    events: list[str] | None = None
    note: str | None = None
    repo_id: int = 0
    org_id: int = 0

    @classmethod
    def from_json(cls, body: bytes) -> "SecretBody":
        """Read a verified body.

        Raises:
            BadRequest: it is no such JSON document.
        """
        return _parse(cls, body)

    def check_belongs_to(self, repo_id: int, name: str | None = None) -> None:
        """Raise :exc:`Invalid` if the body names another secret than the URL does."""
        if self.repo_id not in {0, repo_id} or self.org_id != 0:
            raise Invalid("The body is about another repository or organization than the URL.")
        if name is not None and self.name not in {None, "", name}:
            raise Invalid("The body names another secret than the URL; secrets cannot be renamed.")


_NOT_ALPHA = frozenset({"repo", "pipeline", "netrc", "configuration"})
"""What the bodies of Woodpecker's other extensions hold, and a secret's does not."""


def check_made_for_alpha(method: str, body: bytes) -> None:
    """Refuse a body that cannot have been signed for the alpha form.

    Whoever administers a repository chooses the path for which Woodpecker signs the bodies of that repository's
    pipelines, and can send one here with any method: the signature does not cover that.

    Raises:
        SignatureRefused: a GET or DELETE with a body, or a POST or PUT with that of another extension.
        BadRequest: a POST or PUT with what is not a JSON object.
    """
    if method in {"GET", "DELETE"}:
        if body:
            raise SignatureRefused("This request takes no body: what was signed was made for something else.")
        return
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise BadRequest("The body is not as expected: it is not JSON.") from None
    if not isinstance(document, dict):
        raise BadRequest("The body is not as expected: it is not a JSON object.")
    if _NOT_ALPHA & {key.lower() for key in document}:
        raise SignatureRefused("This body is a pipeline's: what was signed was made for something else.")


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret as Woodpecker takes it. ``events`` is never empty: Woodpecker would read that as *every* event."""

    name: str
    value: SecretStr
    images: tuple[str, ...] = ()
    events: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list; ``size`` 0 is the whole list."""

    number: int = 1
    size: int = 0

    @classmethod
    def from_query(cls, page: str | None, per_page: str | None) -> "Page":
        """Read ``?page=`` and ``?perPage=``. Go's zero value is the same as an absent parameter.

        Raises:
            BadRequest: one of them is not a number, or negative.
        """
        number = _count("page", page)
        size = _count("perPage", per_page)
        if number and not size:
            size = 50  # Woodpecker's own default
        return cls(number or 1, size)

    def of(self, secrets: Sequence[Secret]) -> Sequence[Secret]:
        """The part of the list that is on this page."""
        if not self.size:
            return secrets
        start = (self.number - 1) * self.size
        return secrets[start : start + self.size]


def repo_id_from_url(text: str) -> int:
    """A repository's id out of a URL.

    Raises:
        BadRequest: it is no positive integer in its shortest form.
    """
    if not re.fullmatch(r"[1-9][0-9]{0,18}", text) or int(text) > _MAX_ID:
        raise BadRequest("The repository id in the URL must be a positive integer.")
    return int(text)


def check_events(events: Iterable[str]) -> tuple[str, ...]:
    """The events without repeats.

    Raises:
        Invalid: Woodpecker knows no such event.
    """
    events = tuple(dict.fromkeys(events))
    unknown = [event for event in events if event not in EVENTS]
    if unknown:
        raise Invalid(f"Unknown event {_shown(unknown[0])}; Woodpecker knows {', '.join(EVENTS)}.")
    return events


def check_images(images: Iterable[str]) -> tuple[str, ...]:
    """The images without repeats.

    Raises:
        Invalid: one is no image name.
    """
    images = tuple(dict.fromkeys(images))
    for image in images:
        if not _IMAGE.fullmatch(image):
            raise Invalid(f"{_shown(image)} is no image: [host[:port]/][path/]name[:tag][@sha256:digest].")
    return images


def secrets_answer(secrets: Iterable[Secret]) -> bytes:
    """The released form's answer. An empty list is an answer too: a 204 would make the client ask three times."""
    return _json(
        {
            "secrets": [
                {
                    "name": secret.name,
                    "value": secret.value.get_secret_value(),
                    "images": secret.images,
                    "events": secret.events,
                }
                for secret in secrets
            ]
        }
    )


def secret_answer(repo_id: int, secret: Secret) -> bytes:
    """The alpha form's answer about one secret."""
    return _json(_secret_object(repo_id, secret))


def secret_list_answer(repo_id: int, secrets: Iterable[Secret]) -> bytes:
    """The alpha form's answer about many secrets."""
    return _json([_secret_object(repo_id, secret) for secret in secrets])


def secret_id(repo_id: int, name: str) -> int:
    """A number for a secret: the same each time, and one that JavaScript can hold (under 2^53)."""
    digest = hashlib.sha256(f"{repo_id}/{name}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) or 1


def _secret_object(repo_id: int, secret: Secret) -> dict[str, Any]:
    return {
        "id": secret_id(repo_id, secret.name),
        "org_id": 0,
        "repo_id": repo_id,
        "name": secret.name,
        "value": secret.value.get_secret_value(),
        "images": secret.images,
        "events": secret.events,
        "note": secret.note,
    }


_Model = TypeVar("_Model", bound=_Wire)


def _parse(model: type[_Model], body: bytes) -> _Model:
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        what = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in what["loc"])
        raise BadRequest(f"The body is not as expected: {where + ': ' if where else ''}{what['msg']}.") from None


def _count(name: str, text: str | None) -> int:
    if text is None:
        return 0
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise BadRequest(f"{name} must be a number, 0 or more.")
    return int(text)


def _shown(text: str) -> str:
    """A caller's own text in an error: quoted, on one line, and not too long."""
    return json.dumps(text[:80], ensure_ascii=True)


def _json(document: object) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
