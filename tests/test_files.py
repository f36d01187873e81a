"""Atomic writes: a reader sees the old file or the new one, and a failure leaves the old one."""

import errno
import json
import os

import pytest

from ddpm_bench.errors import UserError
from ddpm_bench.files import (
    SMALL,
    check_unfolding,
    in_a_row,
    keyed_folder,
    make_folder,
    move_aside,
    read_json,
    read_text,
    replacing,
    sha256_file,
    write_json,
    write_text,
)


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path):
    path = tmp_path / "kept.json"
    write_json(path, {"a": 1})
    with pytest.raises(OSError), replacing(path) as temporary:
        temporary.write_text("half of")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert json.loads(path.read_text()) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["kept.json"]


def test_a_value_that_is_not_strict_json_is_refused_before_the_file_changes(tmp_path):
    path = tmp_path / "kept.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError):
        write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": 1}


def test_written_files_are_as_readable_as_any_other(tmp_path):
    write_text(tmp_path / "a.txt", "ä")
    (tmp_path / "b.txt").write_text("b")
    assert (tmp_path / "a.txt").stat().st_mode == (tmp_path / "b.txt").stat().st_mode
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "ä"


def test_a_folder_below_a_file_is_a_users_mistake(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Choose another folder"):
        make_folder(tmp_path / "file" / "below")


def test_an_unwritable_folder_is_a_users_mistake(tmp_path, monkeypatch):
    # Root may write anywhere, so the answer of the operating system is what is replaced.
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(UserError, match="permission denied"):
        make_folder(tmp_path)


def test_the_hash_is_sha256_of_the_bytes(tmp_path):
    (tmp_path / "empty").write_bytes(b"")
    assert sha256_file(tmp_path / "empty") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_what_is_moved_aside_keeps_its_place_below_a_dated_folder(tmp_path):
    (tmp_path / "work" / "a").mkdir(parents=True)
    (tmp_path / "work" / "a" / "inside").write_text("1")
    (tmp_path / "a.json").write_text("2")
    (tmp_path / "b.json").write_text("3")
    move_aside(tmp_path, [tmp_path / "a.json", tmp_path / "work" / "a", tmp_path / "none.png"])
    assert (tmp_path / "b.json").exists() and not (tmp_path / "a.json").exists()
    (aside,) = tmp_path.glob("before-*")
    assert (aside / "a.json").read_text() == "2" and (aside / "work" / "a" / "inside").read_text() == "1"
    assert {path.name for path in aside.iterdir()} == {"a.json", "work"}


def test_a_folder_is_found_again_by_all_that_its_content_depends_on_and_by_nothing_else(tmp_path):
    """Trap 10: what is kept is never handed out for another model."""
    ours = keyed_folder(tmp_path, "bound", {"weights": "a", "seed": 0})
    assert keyed_folder(tmp_path, "bound", {"seed": 0, "weights": "a"}) == ours
    others = [{"weights": "b", "seed": 0}, {"weights": "a"}, {"weights": "a", "seed": 1}]
    assert len({ours, keyed_folder(tmp_path, "samples", {"weights": "a", "seed": 0})}) == 2
    assert ours not in [keyed_folder(tmp_path, "bound", of) for of in others]
    assert json.loads((ours / "of.json").read_text()) == {"weights": "a", "seed": 0}
    with pytest.raises(TypeError):
        keyed_folder(tmp_path, "bound", {"weights": tmp_path})


def test_kept_ranges_are_taken_in_a_row_the_longest_of_one_start_and_damaged_ones_as_missing() -> None:
    def taken(ranges: list[tuple[int, int]], damaged: tuple[tuple[int, int], ...] = ()) -> list[tuple[int, int]]:
        held = in_a_row(ranges, lambda start, end: None if (start, end) in damaged else "held")
        return [(start, end) for start, end, _ in held]

    assert taken([(8, 16), (0, 8), (16, 20)]) == [(0, 8), (8, 16), (16, 20)]
    assert taken([(0, 8), (16, 24)]) == [(0, 8)]
    assert taken([(0, 8), (8, 12), (8, 24), (12, 16)]) == [(0, 8), (8, 24)]
    assert taken([(0, 8), (8, 12), (8, 24), (12, 16)], damaged=((8, 24),)) == [(0, 8), (8, 12), (12, 16)]
    assert taken([(8, 16)]) == []


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"[" * 100_000, "nested too deeply"), (b"{", "line 1"), (b"\xff", "utf-8"), (b"9" * 5000, "digits")],
)
def test_what_is_no_json_is_a_value_error_whatever_json_says(tmp_path, content, said):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(ValueError, match=said):
        read_json(tmp_path / "x.json")


def test_what_would_never_end_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "zero.json").symlink_to("/dev/zero")
    for path in (tmp_path / "pipe.json", tmp_path / "zero.json", tmp_path):
        with pytest.raises(OSError, match="no regular file"):
            read_json(path)
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "none.json")


def test_a_file_unfolds_to_a_hundred_times_its_bytes_or_to_little():
    check_unfolding(100 * 2**30, 2**30, "it")
    check_unfolding(SMALL, 1, "it")
    with pytest.raises(UserError, match=r"it claims to hold 268,435,457 bytes in 1,"):
        check_unfolding(SMALL + 1, 1, "it")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
def test_a_text_is_read_as_its_byte_order_mark_says(tmp_path, encoding):
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    (tmp_path / "x.json").write_text(mark + '{"name": "Gruße"}', encoding=encoding)
    assert read_text(tmp_path / "x.json") == '{"name": "Gruße"}'
    assert read_json(tmp_path / "x.json") == {"name": "Gruße"}


def test_bytes_that_are_no_text_are_refused_as_such(tmp_path):
    (tmp_path / "x.json").write_bytes(b'{"name": "\xff"}')
    with pytest.raises(ValueError, match="utf-8"):
        read_json(tmp_path / "x.json")
