"""What can go wrong, as the caller is told about it."""

import pytest

from woodpecker_vault import errors


class TestProblem:
    @pytest.mark.parametrize(
        ("kind", "status"),
        [
            (errors.Problem, 500),
            (errors.BadRequest, 400),
            (errors.SignatureRefused, 401),
            (errors.UnknownKey, 401),
            (errors.Denied, 403),
            (errors.NotFound, 404),
            (errors.Conflict, 409),
            (errors.Invalid, 422),
            (errors.Unavailable, 503),
        ],
    )
    def test_has_the_status_of_the_error_table(self, kind: type[errors.Problem], status: int) -> None:
        problem = kind("Do this.", cause="that")
        assert problem.status == status
        assert problem.title
        assert problem.detail == "Do this."
        assert problem.cause == "that"

    def test_shows_its_detail_and_not_its_cause(self) -> None:
        assert str(errors.Denied("Write a policy.", cause="403 on secret/data/x")) == "Write a policy."

    def test_every_kind_has_its_own_title(self) -> None:
        kinds = errors.Problem.__subclasses__()
        assert len({kind.title for kind in kinds} | {errors.Problem.title}) == len(kinds) + 1


class TestUnknownKey:
    def test_is_a_refused_signature(self) -> None:
        assert issubclass(errors.UnknownKey, errors.SignatureRefused)


class TestMethodNotAllowed:
    def test_names_the_methods_that_are(self) -> None:
        problem = errors.MethodNotAllowed("PATCH", {"PUT", "DELETE", "GET"})
        assert problem.status == 405
        assert problem.detail == "PATCH is not served here; use DELETE, GET, PUT."
        assert problem.allowed == {"PUT", "DELETE", "GET"}


class TestTooLarge:
    def test_names_the_limit_and_its_setting(self) -> None:
        problem = errors.TooLarge(1_048_576)
        assert problem.status == 413
        assert problem.detail == "The body is over 1048576 bytes; raise server.max_body_bytes if it should be accepted."


class TestUnavailable:
    def test_says_when_to_come_again(self) -> None:
        assert errors.Unavailable("Later.").retry_after == 1
        assert errors.Unavailable("Later.", retry_after=30).retry_after == 30
