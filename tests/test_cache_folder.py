"""Sizes as people write them, and what goes first when room is needed."""

import os
from pathlib import Path

import pytest

from hf_transfer.cache_folder import (
    SEAL,
    cache_folder,
    lock_of,
    make_room,
    mark_used,
    parse_size,
    shown_size,
    things_in,
)
from hf_transfer.errors import UserError


def thing(folder: Path, name: str, num_bytes: int, age: int) -> Path:
    path = folder / name
    path.mkdir()
    (path / "content").write_bytes(b"x" * num_bytes)
    (path / SEAL).write_text("")
    os.utime(path / SEAL, (1_000_000 - age, 1_000_000 - age))
    return path


@pytest.mark.parametrize(
    ("text", "expected"),
    [("500MB", 500_000_000), ("2gb", 2 * 10**9), ("1.5 T", 1_500 * 10**9), ("700", 700), (None, 20 * 10**9), ("0", 0)],
)
def test_sizes(text: str | None, expected: int):
    assert parse_size(text) == expected


@pytest.mark.parametrize("text", [" ", "much", "-3GB", "5XB", "GB", "1,5GB"])
def test_what_is_no_size_is_refused(text: str):
    with pytest.raises(UserError, match="--cache_limit"):
        parse_size(text)


def test_sizes_as_people_read_them():
    assert [shown_size(value) for value in (12, 1500, 2_340_000, 10**10)] == ["12 bytes", "1.5 kB", "2.34 MB", "10 GB"]


def test_what_was_used_longest_ago_goes_first(tmp_path: Path):
    old, middle, new = (thing(tmp_path, name, 100, age) for name, age in (("a", 30), ("b", 20), ("c", 10)))
    assert things_in(tmp_path) == [old, middle, new]
    mark_used(old)
    assert things_in(tmp_path) == [middle, new, old]
    make_room(tmp_path, needed=50, limit=250)
    assert things_in(tmp_path) == [new, old]
    assert not middle.exists()
    make_room(tmp_path, needed=50, limit=250)
    assert things_in(tmp_path) == [new, old]


def test_what_killed_runs_left_goes_and_what_is_being_made_stays(tmp_path: Path):
    left, at_work = tmp_path / "left.partial", tmp_path / "at_work.partial"
    left.mkdir()
    at_work.mkdir()
    with lock_of(tmp_path / "at_work"):
        make_room(tmp_path, needed=0, limit=10)
        assert not left.exists()
        assert at_work.exists()
    make_room(tmp_path, needed=0, limit=10)
    assert not at_work.exists()


def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--cache_dir"):
        cache_folder(str(tmp_path / "file" / "folder"))


def test_the_usual_folder_is_beside_the_hub_cache():
    assert cache_folder(None).parent == Path(os.environ["HF_HOME"])
