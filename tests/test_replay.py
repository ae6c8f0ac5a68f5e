"""What has already been asked under a signature."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from woodpecker_vault.errors import Conflict, SignatureRefused, Unavailable
from woodpecker_vault.replay import Memory


def memory(*, lifetime: float = 35.0, capacity: int = 100, answer_bytes: int = 100) -> Memory[str]:
    return Memory(lifetime=lifetime, capacity=capacity, answer_bytes=answer_bytes)


class TestAdmit:
    def test_lets_an_equal_request_pass_again(self) -> None:
        seen = memory()
        for now in (0.0, 0.5, 34.9):
            seen.admit(b"s", "POST", "/secrets", now)
        assert len(seen) == 1

    @pytest.mark.parametrize(
        ("method", "target"),
        [("DELETE", "/repo/1/secrets/x"), ("get", "/repo/1/secrets/x"), ("GET", "/repo/1/secrets/%78"), ("GET", "")],
    )
    def test_refuses_the_signature_for_another_method_or_target(self, method: str, target: str) -> None:
        seen = memory()
        seen.admit(b"s", "GET", "/repo/1/secrets/x", 0.0)
        with pytest.raises(SignatureRefused, match="used before, for another method or path"):
            seen.admit(b"s", method, target, 1.0)

    def test_still_lets_the_first_request_pass_after_a_refusal(self) -> None:
        seen = memory()
        seen.admit(b"s", "GET", "/x", 0.0)
        with pytest.raises(SignatureRefused):
            seen.admit(b"s", "DELETE", "/x", 1.0)
        seen.admit(b"s", "GET", "/x", 2.0)

    def test_tells_signatures_apart(self) -> None:
        seen = memory()
        seen.admit(b"s", "GET", "/x", 0.0)
        seen.admit(b"t", "DELETE", "/x", 0.0)
        assert len(seen) == 2

    def test_remembers_as_long_as_a_signature_can_be_fresh(self) -> None:
        seen = memory(lifetime=35.0)
        seen.admit(b"s", "GET", "/x", 100.0)
        with pytest.raises(SignatureRefused):
            seen.admit(b"s", "DELETE", "/x", 134.999)
        seen.admit(b"s", "DELETE", "/x", 135.0)

    def test_is_not_kept_longer_by_repeats(self) -> None:
        seen = memory(lifetime=35.0)
        for now in (0.0, 20.0):
            seen.admit(b"s", "GET", "/x", now)
        seen.forget(35.0)
        assert len(seen) == 0

    def test_turns_new_signatures_away_when_full_rather_than_forgetting(self) -> None:
        seen = memory(capacity=2, lifetime=35.0)
        seen.admit(b"a", "GET", "/x", 0.0)
        seen.admit(b"b", "GET", "/x", 1.0)
        with pytest.raises(Unavailable, match="try again shortly"):
            seen.admit(b"c", "GET", "/x", 2.0)
        seen.admit(b"a", "GET", "/x", 3.0)
        with pytest.raises(SignatureRefused):
            seen.admit(b"b", "DELETE", "/x", 4.0)
        seen.admit(b"c", "GET", "/x", 35.0)
        assert len(seen) == 2


class TestRecall:
    def test_knows_no_answer_to_what_was_never_asked(self) -> None:
        assert memory().recall(b"s") is None

    def test_knows_no_answer_to_what_is_not_answered_yet(self) -> None:
        seen = memory()
        seen.admit(b"s", "POST", "/x", 0.0)
        assert seen.recall(b"s") is None

    def test_gives_the_answer_again_and_again(self) -> None:
        seen = memory()
        seen.admit(b"s", "POST", "/x", 0.0)
        seen.keep(b"s", "created", 7)
        assert [seen.recall(b"s"), seen.recall(b"s")] == ["created", "created"]

    def test_says_that_a_write_was_done_whose_answer_had_to_go(self) -> None:
        seen = memory(answer_bytes=10)
        for signature in (b"a", b"b"):
            seen.admit(signature, "POST", "/x", 0.0)
            seen.keep(signature, "answer", 6)
        with pytest.raises(Conflict, match="carried out already"):
            seen.recall(b"a")
        assert seen.recall(b"b") == "answer"


class TestKeep:
    def test_ignores_an_answer_to_what_was_forgotten(self) -> None:
        seen = memory(lifetime=35.0)
        seen.admit(b"s", "POST", "/x", 0.0)
        seen.forget(35.0)
        seen.keep(b"s", "late", 4)
        assert seen.recall(b"s") is None

    def test_keeps_the_first_answer(self) -> None:
        seen = memory()
        seen.admit(b"s", "POST", "/x", 0.0)
        seen.keep(b"s", "first", 5)
        seen.keep(b"s", "second", 6)
        assert seen.recall(b"s") == "first"

    def test_drops_an_answer_larger_than_all_the_room_but_not_that_it_was_done(self) -> None:
        seen = memory(answer_bytes=10)
        seen.admit(b"s", "POST", "/x", 0.0)
        seen.keep(b"s", "large", 11)
        with pytest.raises(Conflict):
            seen.recall(b"s")
        seen.admit(b"t", "POST", "/x", 0.0)
        seen.keep(b"t", "fits", 10)
        assert seen.recall(b"t") == "fits"

    def test_fills_the_room_to_the_last_byte(self) -> None:
        seen = memory(answer_bytes=10)
        for signature in (b"a", b"b"):
            seen.admit(signature, "POST", "/x", 0.0)
            seen.keep(signature, "five!", 5)
        assert [seen.recall(b"a"), seen.recall(b"b")] == ["five!", "five!"]


class TestForget:
    def test_gives_the_room_of_answers_back(self) -> None:
        seen = memory(lifetime=35.0, answer_bytes=10)
        seen.admit(b"a", "POST", "/x", 0.0)
        seen.keep(b"a", "a", 10)
        seen.admit(b"b", "POST", "/x", 35.0)
        seen.keep(b"b", "b", 6)
        seen.admit(b"c", "POST", "/x", 35.0)
        seen.keep(b"c", "c", 4)
        assert [seen.recall(b"a"), seen.recall(b"b"), seen.recall(b"c")] == [None, "b", "c"]

    def test_leaves_what_is_fresh(self) -> None:
        seen = memory(lifetime=35.0)
        seen.admit(b"a", "POST", "/x", 0.0)
        seen.admit(b"b", "POST", "/x", 10.0)
        seen.keep(b"b", "b", 1)
        seen.forget(35.0)
        assert len(seen) == 1
        assert seen.recall(b"b") == "b"


class TestMemory:
    @given(
        st.lists(
            st.tuples(
                st.sampled_from([b"a", b"b", b"c", b"d", b"e"]),
                st.sampled_from(["GET", "PUT"]),
                st.integers(0, 12),
                st.sampled_from([0, 1, 5]),
            ),
            max_size=30,
        )
    )
    @settings(max_examples=100, deadline=None)
    def test_is_bounded_and_never_gives_one_signature_to_two_requests(
        self, requests: list[tuple[bytes, str, int, int]]
    ) -> None:
        seen = memory(lifetime=10.0, capacity=4, answer_bytes=20)
        now, methods, sizes = 0, dict[bytes, tuple[str, int]](), dict[bytes, int]()
        for signature, method, size, pause in requests:
            now += pause
            methods = {one: use for one, use in methods.items() if use[1] + 10 > now}
            sizes = {one: size for one, size in sizes.items() if one in methods}
            first = methods.get(signature)
            expected: type[Exception] | None = None
            if first is None and len(methods) == 4:
                expected = Unavailable
            elif first is not None and first[0] != method:
                expected = SignatureRefused
            if expected:
                with pytest.raises(expected):
                    seen.admit(signature, method, "/x", now)
                continue
            seen.admit(signature, method, "/x", now)
            methods.setdefault(signature, (method, now))
            seen.keep(signature, signature.decode(), size)
            sizes.setdefault(signature, size)
            assert len(seen) == len(methods)
            kept = 0
            for one, room in sizes.items():
                try:
                    assert seen.recall(one) == one.decode()
                    kept += room
                except Conflict:
                    pass
            assert kept <= 20
