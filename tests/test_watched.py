"""What is made of files: made anew when they change, and kept when that fails."""

import logging
import os
from pathlib import Path

import pytest

from woodpecker_vault.watched import Watched


def number_in(path: Path) -> int:
    return int(path.read_text())


def watched(path: Path) -> Watched[int]:
    return Watched("a number", lambda: [path], lambda: number_in(path))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "number"
    path.write_text("1")
    return path


def test_it_is_made_at_the_start_and_not_again_while_nothing_changes(path: Path) -> None:
    made = []
    one = Watched("a number", lambda: [path], lambda: made.append(number_in(path)))
    for _ in range(3):
        one.current()
    assert made == [1]


@pytest.mark.parametrize("content", ["", "x"])
def test_what_cannot_be_made_at_the_start_is_an_error(path: Path, content: str) -> None:
    path.write_text(content)
    with pytest.raises(ValueError, match="invalid literal"):
        watched(path)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        watched(path)


def test_a_change_is_noticed_and_logged(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    one = watched(path)
    path.write_text("22")
    with caplog.at_level(logging.INFO):
        assert one.current() == 22
    (record,) = caplog.records
    assert (record.getMessage(), record.__dict__["file"]) == ("a number changed", str(path))


def test_a_half_written_one_is_warned_of_once_and_the_last_good_one_stays_until_it_is_whole(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one = watched(path)
    path.write_text("2x")
    assert [one.current() for _ in range(3)] == [1, 1, 1]
    (record,) = caplog.records
    assert record.getMessage() == "a number cannot be read; the last good one stays"
    path.write_text("222")
    assert one.current() == 222


def test_two_files_count_as_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As a certificate and its key do: while only one of them is new, the old pair stays."""
    both = [tmp_path / "one", tmp_path / "two"]
    for file in both:
        file.write_text("1")

    def make() -> int:
        first, second = map(number_in, both)
        if first != second:
            raise ValueError("they do not belong together")
        return first

    one = Watched("a pair", lambda: both, make)
    both[0].write_text("22")
    assert one.current() == 1
    both[1].write_text("22")
    assert one.current() == 22
    assert len([record for record in caplog.records if record.levelname == "WARNING"]) == 1


def test_a_folder_may_hold_other_files_later_or_be_gone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a").write_text("1")
    one = Watched("a sum", lambda: sorted(folder.iterdir()), lambda: sum(map(number_in, folder.iterdir())))
    (folder / "b").write_text("2")
    assert one.current() == 3
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    assert [one.current(), one.current()] == [3, 3]
    assert [record.__dict__["file"] for record in caplog.records] == [str(folder)]


class TestReload:
    def test_it_reads_again_though_nothing_seems_to_have_changed(
        self, path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        one = watched(path)
        before = path.stat()
        path.write_text("2")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert one.current() == 1
        with caplog.at_level(logging.INFO):
            one.reload()
        assert one.current() == 2
        assert [record.getMessage() for record in caplog.records] == ["a number was read again"]

    def test_each_time_it_says_what_is_wrong(self, path: Path, caplog: pytest.LogCaptureFixture) -> None:
        one = watched(path)
        path.write_text("x")
        one.reload()
        one.reload()
        assert len(caplog.records) == 2
        assert one.current() == 1
        assert len(caplog.records) == 2
