"""One owner a folder: a second process waits or is told who has it, a dead one has nothing, and its rubbish goes."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from errno import ENOLCK

import pytest
from filelock import FileLock

from ddpm_bench.errors import Interrupted, UserError
from ddpm_bench.files import check_free, move_aside, unfinished, write_text
from ddpm_bench.runtime.interrupt import Stop
from ddpm_bench.runtime.owner import owned

HOLD = """
import sys, time
from pathlib import Path
from ddpm_bench.runtime.owner import owned
with owned(Path(sys.argv[1]), part=sys.argv[2]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder():
    """Start a process that owns a folder until its input is closed."""
    started = []

    def hold(folder, part=""):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(folder), part], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield hold
    for process in started:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def test_a_folder_that_is_in_use_is_refused_with_who_has_it(tmp_path, holder):
    process = holder(tmp_path)
    with pytest.raises(UserError) as refused, owned(tmp_path):
        pass
    for said in (f"process {process.pid} on '{socket.gethostname()}' since 20", f"({'-c'} {tmp_path}", "stop it"):
        assert said in str(refused.value)


def test_what_a_killed_process_held_is_free_at_once(tmp_path, holder):
    process = holder(tmp_path)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert list(tmp_path.iterdir())  # the file is there still; the lock is not
    with owned(tmp_path):
        assert json.loads((tmp_path / ".owner.held").read_text())["process"] == os.getpid()
    assert not list(tmp_path.iterdir())


def test_who_waits_is_let_in_once_the_first_has_ended(tmp_path, holder, messages, capsys):
    process = holder(tmp_path)
    process.stdin.close()
    with owned(tmp_path, wait_s=20):
        pass
    process.wait()
    held = holder(tmp_path)
    began = time.monotonic()
    with pytest.raises(UserError), owned(tmp_path, wait_s=0.3):
        pass
    assert 0.3 <= time.monotonic() - began < 5
    assert f"Waiting for '{tmp_path}', which is in use by process {held.pid}" in capsys.readouterr().err


def test_waiting_can_be_interrupted(tmp_path, holder):
    holder(tmp_path)
    with Stop() as stop, pytest.raises(Interrupted):
        stop.requested = True
        with owned(tmp_path, wait_s=60):
            pass


def test_parts_of_a_folder_have_owners_of_their_own(tmp_path, holder):
    holder(tmp_path, "one")
    with owned(tmp_path), owned(tmp_path, part="two"):
        pass
    with pytest.raises(UserError), owned(tmp_path, part="one"):
        pass


def test_a_block_within_another_is_let_in_and_leaves_the_lock(tmp_path):
    with owned(tmp_path / "a"):
        with owned(tmp_path / "a" / ".." / "a") as folder:
            write_text(folder / "x", "")
        assert (tmp_path / "a" / ".owner.lock").exists()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["x"]


def test_a_folder_that_was_made_for_nothing_is_gone_again(tmp_path):
    with owned(tmp_path / "new"):
        pass
    assert not (tmp_path / "new").exists()
    (tmp_path / "old").mkdir()
    with owned(tmp_path / "old"):
        pass
    assert (tmp_path / "old").exists()


def test_the_lock_is_no_content(tmp_path):
    folder = tmp_path / "work"
    with owned(folder):
        check_free(folder)
        (folder / "a").write_text("1")
        move_aside(tmp_path, [folder])
        assert sorted(path.name for path in folder.iterdir()) == [".owner.held", ".owner.lock"]
        with pytest.raises(UserError):
            second_process_takes(folder)
    assert not (tmp_path / "work").exists()
    assert [path.name for path in tmp_path.glob("before-*/work/*")] == ["a"]


def second_process_takes(folder):
    code = (
        f"from pathlib import Path; from ddpm_bench.runtime.owner import owned\nwith owned(Path({str(folder)!r})): pass"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if done.returncode:
        raise UserError(done.stderr)


def test_a_folder_that_is_removed_meanwhile_is_no_fault(tmp_path):
    with owned(tmp_path / "a"):
        shutil.rmtree(tmp_path / "a")
        with owned(tmp_path / "b"):
            (tmp_path / "a").mkdir()
            (tmp_path / "a" / ".owner.lock").write_text("of another process")
    assert (tmp_path / "a" / ".owner.lock").exists()


def test_a_folder_that_cannot_be_written_is_a_users_mistake(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Choose another folder"), owned(tmp_path / "file"):
        pass
    monkeypatch.setattr("ddpm_bench.runtime.owner.os.open", refuse)
    with pytest.raises(UserError, match=r"Permission denied\. Choose another folder"), owned(tmp_path):
        pass


def test_on_a_full_disk_a_folder_is_owned_all_the_same(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ddpm_bench.runtime.owner.write_json", refuse)
    with owned(tmp_path), pytest.raises(UserError, match="in use by another process"):
        monkeypatch.undo()
        second_process_takes(tmp_path)


def test_where_there_are_no_locks_that_is_said_and_nothing_removed(tmp_path, monkeypatch, messages, capsys):
    def refuse(*_, **__):
        raise OSError(ENOLCK, "No locks available")

    (tmp_path / ".a.abcdefgh.part").write_text("")
    monkeypatch.setattr(FileLock, "acquire", refuse)
    with owned(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == [".a.abcdefgh.part"]
    assert "without locks" in capsys.readouterr().err


# ---- what killed processes leave ------------------------------------------------------------------------------------

WRITE = """
import sys
from pathlib import Path
from ddpm_bench.files import replacing
with replacing(Path(sys.argv[1])) as temporary:
    temporary.write_text("half of")
    print("writing", flush=True)
    sys.stdin.read()
"""


def killed_while_writing(path):
    process = subprocess.Popen(
        [sys.executable, "-c", WRITE, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    process.stdout.readline()
    process.kill()
    process.communicate()


def test_what_a_killed_process_had_begun_to_write_is_removed_by_the_next_owner_and_nothing_else(
    tmp_path, messages, capsys
):
    work = tmp_path / "work" / "a"
    (work / ".step-000010.partial").mkdir(parents=True)
    (work / ".step-000010.partial" / "ema.safetensors").write_text("")
    killed_while_writing(tmp_path / "a-seed0.json")
    killed_while_writing(work / "samples-1" / "x.npy")
    strangers = [".a.png", ".a.json.abcdefgh.json", "a.json.abcdefgh.part", ".b.part", ".step-1.partial.txt"]
    for name in strangers:
        (tmp_path / name).write_text("")
    assert not list(tmp_path.glob("*-seed*.json"))  # no listing takes it for a record
    with owned(tmp_path):
        left = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {*strangers, ".owner.lock", ".owner.held"} and not list(work.glob(".*"))
    assert "3 in number" in capsys.readouterr().err


def test_nothing_is_removed_where_another_writes_or_where_only_a_part_is_owned(tmp_path, holder):
    killed_while_writing(tmp_path / "work" / "a" / "x.npy")
    killed_while_writing(tmp_path / "b")
    with owned(tmp_path, part="b"):
        assert any(unfinished(path.name) for path in tmp_path.iterdir())
    holder(tmp_path / "work" / "a", "x")
    with owned(tmp_path):
        assert any(unfinished(path.name) for path in (tmp_path / "work" / "a").iterdir())
        assert not any(unfinished(path.name) for path in tmp_path.iterdir())


def test_what_is_left_below_is_removed_where_the_owner_there_is_dead_too(tmp_path, holder):
    process = holder(tmp_path / "work" / "a")
    killed_while_writing(tmp_path / "work" / "a" / "x.npy")
    with owned(tmp_path):
        assert any(unfinished(path.name) for path in (tmp_path / "work" / "a").iterdir())
    process.kill()
    process.wait()
    with owned(tmp_path):
        assert not list((tmp_path / "work" / "a").iterdir())
