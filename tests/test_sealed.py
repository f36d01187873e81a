"""Sealed files: what was written comes back, and nothing else does."""

import os
import resource
from pathlib import Path

import numpy as np
import pytest

from ddpm_bench.sealed import SEAL, is_whole, read_arrays, read_sealed, seal, write_arrays, write_sealed

VALUE = {"b": 1.5, "tiny": 1e-300, "text": "µ̃", "list": [1, 2.0, None]}
ARRAYS = {
    "images": np.arange(24, dtype=np.uint8).reshape(2, 3, 4)[:, ::-1],
    "scalar": np.array(3.5),
    "none": np.zeros((0, 3)),
    "counts": np.array([1, -2], dtype=np.int64),
}


@pytest.fixture
def json_file(tmp_path: Path) -> Path:
    path = tmp_path / "scores-0123" / "found.json"
    write_sealed(path, VALUE)
    return path


@pytest.fixture
def arrays_file(tmp_path: Path) -> Path:
    path = tmp_path / "samples-0123" / "00000000-00000002.safetensors"
    write_arrays(path, ARRAYS)
    return path


def same(read: dict[str, np.ndarray] | None) -> bool:
    return read is not None and read.keys() == ARRAYS.keys() and all(
        read[name].dtype == array.dtype and read[name].shape == array.shape and np.array_equal(read[name], array)
        for name, array in ARRAYS.items()
    )  # fmt: skip


def test_what_was_written_comes_back(json_file: Path, arrays_file: Path) -> None:
    assert read_sealed(json_file) == VALUE
    assert same(read_arrays(arrays_file))


def test_nothing_comes_from_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "ddpm_bench"):
        assert read_sealed(tmp_path / "absent.json") is None and read_arrays(tmp_path / "absent.safetensors") is None
    assert not caplog.messages


def test_of_every_flipped_bit_something_is_said_or_it_changed_nothing(
    json_file: Path, arrays_file: Path, caplog
) -> None:
    for path, whole in ((json_file, lambda: read_sealed(json_file)), (arrays_file, lambda: read_arrays(arrays_file))):
        content = path.read_bytes()
        unnoticed = 0
        for bit in range(0, 8 * len(content), 3):
            flipped = bytearray(content)
            flipped[bit // 8] ^= 1 << bit % 8
            path.write_bytes(flipped)
            caplog.clear()
            with caplog.at_level("INFO", "ddpm_bench"):
                found = whole()
            if found is not None:
                unnoticed += 1
                assert found == VALUE if path == json_file else same(found)
            else:
                assert caplog.messages == [f"Making '{path}' again: its hash is not that of its content."]
        assert unnoticed <= 4  # white space


@pytest.mark.parametrize("content", [b"", b"[]", b"3", b"{}", b"\xff", b'{"seal": 3}', b"[" * 100_000])
def test_a_foreign_file_counts_as_nothing(json_file: Path, arrays_file: Path, content: bytes) -> None:
    json_file.write_bytes(content)
    arrays_file.write_bytes(content)
    assert read_sealed(json_file) is None and read_arrays(arrays_file) is None


def test_swapped_files_are_found(json_file: Path, arrays_file: Path, tmp_path: Path) -> None:
    other = tmp_path / "scores-4567" / "found.json"
    write_sealed(other, {"b": 2.5})
    json_file.write_bytes(other.read_bytes())
    assert read_sealed(json_file) is None and read_sealed(other) == {"b": 2.5}
    next_one = arrays_file.with_name("00000002-00000004.safetensors")
    next_one.write_bytes(arrays_file.read_bytes())
    assert read_arrays(next_one) is None and same(read_arrays(arrays_file))


def test_a_seal_is_of_the_content_alone() -> None:
    sealed = seal(VALUE)
    assert is_whole(sealed) and seal(sealed) == sealed
    assert not is_whole(sealed | {"b": 2}) and not is_whole(VALUE) and not is_whole(sealed, "elsewhere")
    assert is_whole({key: sealed[key] for key in reversed(sealed)}) and SEAL in sealed


def test_keys_that_json_makes_text_of_are_sealed_as_they_are_read(json_file: Path) -> None:
    write_sealed(json_file, {10: 1, 9: (2, 3)})  # type: ignore[dict-item]
    assert read_sealed(json_file) == {"10": 1, "9": [2, 3]}


def test_a_named_pipe_counts_as_nothing(json_file: Path, arrays_file: Path) -> None:
    for path in (json_file, arrays_file):
        path.unlink()
        os.mkfifo(path)
    assert read_sealed(json_file) is None and read_arrays(arrays_file) is None


def test_a_full_disk_is_said_as_one(arrays_file: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = arrays_file.read_bytes()
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_arrays(arrays_file, {"a": np.zeros(10_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert arrays_file.read_bytes() == before and [path.name for path in arrays_file.parent.iterdir()] == [
        arrays_file.name
    ]
