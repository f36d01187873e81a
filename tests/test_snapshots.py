"""Snapshots: whole or absent, newest kept, refused when damaged or of another run."""

import errno
import json
import os
import pickle
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ddpm_bench.config.networks import UNetSettings
from ddpm_bench.errors import UserError
from ddpm_bench.files import sha256_file
from ddpm_bench.sealed import SEAL, seal
from ddpm_bench.training.snapshots import (
    FORMAT,
    UNSEALED,
    Damaged,
    check_identity,
    load_state,
    load_tensors,
    load_weights,
    save,
    snapshots,
)

TICK = {"means": [0.0, 0.0], "seconds": 1.0}
IDENTITY = {"network": {"base": 8, "multipliers": (1, 2)}, "data": "embedded"}


def tensors(value: float) -> dict[str, dict[str, Tensor]]:
    return {stem: {"a": torch.full((40, 50), value + i)} for i, stem in enumerate(("network", "ema", "optimizer"))}


def write(folder: Path, step: int, keep: int = 2) -> Path:
    state = {"seed": 3, "identity": IDENTITY, "seconds": 1.5, "tick": TICK, "log": []}
    return save(folder, step, tensors(step), state, keep)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@contextmanager
def full_disk() -> Iterator[None]:
    """Files stop growing at 4 kB: the system refuses the write as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_weights_come_back_bitwise_with_what_they_are(tmp_path: Path) -> None:
    value = torch.randn(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    parts = {"network": {"w": value}, "ema": {"w": 2 * value}, "optimizer": {}}
    snapshot = save(
        tmp_path, 7, parts, {"seed": 3, "identity": IDENTITY, "log": [], "seconds": 0, "tick": TICK}, keep=1
    )
    for path in (tmp_path, snapshot):
        ema, metadata = load_weights(path)
        assert torch.equal(ema["w"], 2 * value)
        digest = sha256_file(snapshot / "ema.safetensors")
        about = {"step": 7, "seed": 3, "identity": json.loads(json.dumps(IDENTITY)), "sampling": {}}
        assert metadata == about | {"sha256": digest}
    raw, metadata = load_weights(tmp_path, "raw")
    assert torch.equal(raw["w"], value) and metadata["sha256"] == sha256_file(snapshot / "network.safetensors")


def test_only_the_newest_snapshots_are_kept_in_order_of_step(tmp_path: Path) -> None:
    for step in (5, 999_998, 999_999, 1_000_000):
        write(tmp_path, step, keep=2)
    assert names(tmp_path) == ["step-1000000", "step-999999"]
    assert load_weights(tmp_path)[1]["step"] == 1_000_000


def test_a_crash_while_writing_leaves_the_older_snapshot_and_the_next_save_cleans_up(tmp_path: Path) -> None:
    write(tmp_path, 5)
    half = tmp_path / ".step-000010.partial"
    half.mkdir()
    (half / "network.safetensors").write_bytes(b"half")
    assert [path.name for path in snapshots(tmp_path)] == ["step-000005"]
    write(tmp_path, 10)
    assert names(tmp_path) == ["step-000005", "step-000010"]


def test_a_full_disk_is_an_oserror_and_leaves_the_folder_as_it_was(tmp_path: Path) -> None:
    write(tmp_path, 5)
    with full_disk(), pytest.raises(OSError, match="File too large"):
        write(tmp_path, 10, keep=1)
    assert names(tmp_path) == ["step-000005"]
    assert load_tensors(tmp_path / "step-000005", "network", load_state(tmp_path / "step-000005"))["a"][0, 0] == 5


def test_a_disk_that_is_full_when_flushing_leaves_the_folder_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, 5)
    flushes: list[int] = []

    def fsync(descriptor: int) -> None:
        flushes.append(descriptor)
        if len(flushes) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="No space left") as raised:
        write(tmp_path, 10, keep=1)
    assert raised.value.errno == errno.ENOSPC
    assert names(tmp_path) == ["step-000005"]


def test_everything_is_flushed_before_the_snapshot_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: flushed.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    write(tmp_path, 5)
    at_rename = [Path(path) for path in flushed[:-1]]
    assert {"network.safetensors", "ema.safetensors", "optimizer.safetensors"} <= {path.name for path in at_rename}
    assert at_rename[-1].name == ".step-000005.partial"
    assert Path(flushed[-1]) == tmp_path


FILES = ["network.safetensors", "ema.safetensors", "optimizer.safetensors", "state.json"]


def damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "missing":
        return path.unlink()
    if how == "truncated":
        del content[len(content) // 2 :]
    elif how == "foreign":
        content[:] = b'{"a": [1]}' + bytes(50)
    elif how == "empty":
        content.clear()
    else:
        content[int(how) * len(content) // 100] ^= 1 << int(how) % 8
    path.write_bytes(content)


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("how", ["truncated", "empty", "foreign", "missing", "3", "50", "99"])
def test_a_damaged_file_is_named(tmp_path: Path, file: str, how: str) -> None:
    snapshot = write(tmp_path, 5)
    state = load_state(snapshot)
    damage(snapshot / file, how)
    with pytest.raises(Damaged, match=f"{file}.*not as ddpm-bench wrote it.*--fresh"):
        load_state(snapshot) if file == "state.json" else load_tensors(snapshot, file.split(".")[0], state)


@pytest.mark.parametrize("file", ["ema.safetensors", "state.json"])
def test_of_a_damaged_snapshot_the_one_before_is_taken_and_it_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, file: str
) -> None:
    older, newer = write(tmp_path, 5), write(tmp_path, 10)
    damage(newer / file, "50")
    with caplog.at_level("INFO", "ddpm_bench"):
        weights, about = load_weights(tmp_path)
    assert about["step"] == 5 and weights["a"][0, 0] == 6
    assert "step-000010" in caplog.text and "the snapshot before it is taken" in caplog.text
    with pytest.raises(Damaged):  # asked for by name
        load_weights(newer)
    damage(older / "ema.safetensors", "50")
    with pytest.raises(Damaged, match="no older snapshot"):
        load_weights(tmp_path)


def test_any_flipped_bit_of_a_state_is_found_or_changes_nothing(tmp_path: Path) -> None:
    path = write(tmp_path, 5) / "state.json"
    whole, state = path.read_bytes(), load_state(path)
    found = 0
    for bit in range(0, 8 * len(whole), 41):
        content = bytearray(whole)
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        try:
            assert load_state(path) == state
        except Damaged:
            found += 1
    assert found > 100


def test_a_file_that_may_not_be_read_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = write(tmp_path, 5)

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "open", refused)
    with pytest.raises(UserError, match="cannot be read: Permission denied") as raised:
        load_state(snapshot)
    assert not isinstance(raised.value, Damaged)


def test_a_snapshot_of_a_newer_version_is_refused_and_no_damage(tmp_path: Path) -> None:
    path = write(tmp_path, 5) / "state.json"
    newer = {key: value for key, value in load_state(path).items() if key != SEAL} | {"format": FORMAT[:-1] + "3"}
    path.write_text(json.dumps(seal(newer)))
    with pytest.raises(UserError, match="Install a newer one") as raised:
        load_weights(tmp_path)
    assert not isinstance(raised.value, Damaged)


def test_a_snapshot_of_before_there_were_hashes_is_read_and_it_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path, 5) / "state.json"
    older = {key: value for key, value in load_state(path).items() if key not in (SEAL, "files", "weights")}
    path.write_text(json.dumps(older | {"format": UNSEALED}))
    with caplog.at_level("INFO", "ddpm_bench"):
        assert load_weights(tmp_path)[0]["a"][0, 0] == 6
    assert "without hashes" in caplog.text
    path.write_text(json.dumps(older | {"format": UNSEALED, "seconds": "many"}))
    with pytest.raises(Damaged, match="seconds"):
        load_weights(tmp_path)


def test_json_of_something_else_is_no_checkpoint(tmp_path: Path) -> None:
    state = write(tmp_path, 5) / "state.json"
    for content in ('{"step": 5}', "[1]", '{"format": "ddpm-bench checkpoint 1"}', "[" * 100_000):
        state.write_text(content)
        with pytest.raises(Damaged, match="not as ddpm-bench wrote it"):
            load_state(state.parent)


def test_no_checkpoint_is_a_message_with_the_folder(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(UserError, match="no checkpoint of ddpm-bench"):
            load_weights(path)


def test_another_identity_is_refused_and_every_difference_shown() -> None:
    found = {"seed": 1, "network": {"base": 8, "multipliers": [1, 2]}, "gone": True}
    check_identity(Path("x"), found, {"seed": 1, "network": {"base": 8, "multipliers": (1, 2)}, "gone": True})
    with pytest.raises(UserError) as raised:
        check_identity(Path("runs/a"), found, {"seed": 1, "network": {"base": 16, "multipliers": (1, 2)}, "new": None})
    assert str(raised.value).splitlines()[1:4] == [
        "  network.base: was 8, now 16", "  new: was absent, now None", "  gone: was True, now absent",
    ]  # fmt: skip
    assert "runs/a" in str(raised.value) and "network.multipliers" not in str(raised.value)


def test_settings_that_a_section_has_gained_since_have_their_defaults() -> None:
    """A checkpoint of an earlier version goes on, unless the new setting is given another value than the one it had."""
    now = {"network": UNetSettings(base=8, groups=4).model_dump(mode="json"), "seed": 0}
    was = {
        "network": {key: value for key, value in now["network"].items() if key not in ("heads", "padding")},
        "seed": 0,
    }
    check_identity(Path("x"), was, now)
    with pytest.raises(UserError, match=r"network\.heads: was 1, now 2"):
        check_identity(Path("x"), was, {**now, "network": {**now["network"], "heads": 2}})


def test_a_worker_can_tell_its_parent_of_damage(tmp_path: Path) -> None:
    told = pickle.loads(pickle.dumps(Damaged(tmp_path, "why")))
    assert isinstance(told, Damaged) and f"'{tmp_path}' is not as ddpm-bench wrote it (why)" in str(told)
