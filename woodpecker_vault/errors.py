"""What can go wrong, as the caller is told about it.

One class a status of the error table. ``detail`` is shown to the caller and says what to do next; ``cause`` goes to
the log only. Neither ever holds a secret's value, a token or a netrc.
"""

from typing import ClassVar


class Problem(Exception):
    """Something the caller is told as ``application/problem+json`` (RFC 9457)."""

    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"

    def __init__(self, detail: str, *, cause: str = "") -> None:
        super().__init__(detail)
        self.detail = detail
        self.cause = cause


class BadRequest(Problem):
    """The request cannot be understood."""

    status = 400
    title = "Bad request"


class SignatureRefused(Problem):
    """The request is not proven to come unchanged, and just now, from the Woodpecker server."""

    status = 401
    title = "Signature refused"


class UnknownKey(SignatureRefused):
    """A signature that is well-formed and fresh, but verifies under none of the known keys."""


class Denied(Problem):
    """Vault does not let our token do this; asking again is no use."""

    status = 403
    title = "Denied by Vault"


class NotFound(Problem):
    """There is no such secret, or no such route."""

    status = 404
    title = "Not found"


class MethodNotAllowed(Problem):
    """The route exists, but not for this method."""

    status = 405
    title = "Method not allowed"

    def __init__(self, method: str, allowed: set[str]) -> None:
        super().__init__(f"{method} is not served here; use {', '.join(sorted(allowed))}.")
        self.allowed = allowed


class TokenRefused(Denied):
    """It is not a policy that is missing: the token itself is no longer valid, and there is no other."""


class NoNamespace(Denied):
    """Vault has no namespace of the name in the settings."""


class Conflict(Problem):
    """The write would overwrite, or lost to another write."""

    status = 409
    title = "Conflict"


class TooLarge(Problem):
    """The body is longer than ``server.max_body_bytes``."""

    status = 413
    title = "Body too large"

    def __init__(self, limit: int) -> None:
        super().__init__(f"The body is over {limit} bytes; raise server.max_body_bytes if it should be accepted.")


class Invalid(Problem):
    """A secret that Woodpecker would refuse, or that cannot be kept in Vault under its name."""

    status = 422
    title = "Invalid secret"


class Unavailable(Problem):
    """Vault cannot answer now; the same request may work later.

    ``maybe_done`` says that what was asked of Vault may have been done all the same, or be done yet.
    """

    status = 503
    title = "Vault unavailable"

    def __init__(
        self,
        detail: str,
        *,
        cause: str = "",
        retry_after: int = 1,
        maybe_done: bool = False,
    ) -> None:
        super().__init__(detail, cause=cause)
        self.retry_after = retry_after
        self.maybe_done = maybe_done


class NotVault(Unavailable):
    """Something answered that is not Vault: what stands before it, or something else at its address.

    ``answered`` is the HTTP status with which it did.
    """

    def __init__(self, detail: str, *, cause: str = "", maybe_done: bool = False, answered: int = 0) -> None:
        super().__init__(detail, cause=cause, maybe_done=maybe_done)
        self.answered = answered


class LoginRefused(Unavailable):
    """Vault answered, but does not let the service log in. Somebody has to mend that; then it works by itself."""


class NoKeyYet(Unavailable):
    """There is no public key yet that could verify anybody's request. Woodpecker may ask again."""

    title = "No public key yet"
