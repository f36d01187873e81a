"""Values that nothing was made for, in every setting, preset, grid and option: one message with the field, never a traceback."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from tiny_models import tiny_checkpoint, tiny_data

from ddpm_bench.config.limits import LARGEST_SEED
from ddpm_bench.config.preset import load_preset, parse_set
from ddpm_bench.config.settings import CellSettings, DataSettings, section_of
from ddpm_bench.config.shipped import load_grid
from ddpm_bench.errors import UserError
from ddpm_bench.experiment.ablate import plan
from ddpm_bench.files import make_folder
from ddpm_bench.runtime.terminal import PlainConsole
from ddpm_bench.text import brief, check_plain, visible

GRID = load_grid("table2")
FIELDS = [f"{section}.{name}" for section in CellSettings.model_fields for name in section_of(section, {}).model_fields]
ABSURD = {
    "negative": "-1", "zero": "0", "nan": "nan", "infinite": "inf", "past float": "1e400", "empty": "''", "huge": "1" * 30,
    "thousands of digits": "9" * 5000, "thousands of hexadecimal digits": "0x" + "f" * 5000, "deep": "[" * 3000, "table": "{a=1}",
    "list": "[]", "date": "1979-05-27", "escape": '"\\u001b[2J"', "line break": '"a\\nb"', "reordered": '"\\u202e"', "bare word": "é",
}  # fmt: skip


@pytest.mark.parametrize("value", ABSURD.values(), ids=ABSURD)
def test_every_setting_takes_or_refuses_every_value(value: str) -> None:
    for field in FIELDS:
        try:
            plan(GRID, "smoke", ["eps-mse-fixed"], [0], [f"{field}={value}"])
        except UserError as error:
            assert len(str(error)) < 1000


@pytest.mark.parametrize(
    "assignment",
    [
        "training.learning_rate=inf", "training.clip=inf", "network.eps=inf", "training.ema_decay=nan",
        "sampling.samples=1000000000000", "training.steps=10000000000", "network.base=2147483648",
        'data.name="a\\u001bb"', 'data.source="a\\nb"', "scoring.bootstrap=1000000000",
    ],
)  # fmt: skip
def test_what_was_accepted_and_then_crashed_is_refused_with_its_field(assignment: str) -> None:
    with pytest.raises(UserError, match=assignment.partition("=")[0]):
        plan(GRID, "smoke", ["eps-mse-fixed"], [0], [assignment])


def test_one_assignment_sets_one_value() -> None:
    with pytest.raises(UserError, match="more than one value"):
        parse_set(["training.steps=1\nbatch=3"])


@pytest.mark.parametrize(
    "text",
    ["summary = 3", 'summary = "a\\u001bb"', "[training]\nsteps = " + "9" * 5000, "a = " + "[" * 3000, '[data]\nname = "\\u202e"'],
    ids=["no text", "escape", "digits", "deep", "reordered"],
)  # fmt: skip
def test_a_preset_of_strange_values_is_refused_with_its_path(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"mine\.toml"):
        load_preset(str(path))


GRID_TEXT = """
name = "mine"
title = "t"
source = "s"
[conditions]
data = "d"
size = 32
samples = 1
training_steps = 1
sampling_steps = 1
extractor = "x"
checkpoint = "last"
[[cell]]
name = "a"
label = "l"
parameterization = "eps"
objective = "mse"
variance = "fixed"
published = "blank"
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('title = "t"', 'title = "a\\u001b[2J"'), ('label = "l"', 'label = "a\\nb"'), ("size = 32", "size = -1"),
        ("samples = 1", "samples = 0x" + "f" * 5000), ('published = "blank"', "published = {fid = nan}"),
        ("[[cell]]", "[cell]"), ('published = "blank"', "published = [1]"), ('data = "d"', "data = " + "[" * 3000),
    ],
)  # fmt: skip
def test_a_grid_of_strange_values_is_refused_with_its_path(tmp_path: Path, old: str, new: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(GRID_TEXT)
    load_grid(str(path))
    path.write_text(GRID_TEXT.replace(old, new))
    with pytest.raises(UserError, match=r"mine\.toml"):
        load_grid(str(path))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--seeds", str(LARGEST_SEED + 1)), ("--seeds", "9" * 5000), ("--seeds", "-1"), ("--seeds", "²"),
        ("--seeds", "9-0"), ("--seeds", "1-2-3"), ("--seeds", f"0-{LARGEST_SEED}"), ("--cells", "\x1b[2J"),
        ("--data-name", "a\x1b[2J"), ("--data-name", ""), ("--set", "training.steps=" + "9" * 5000), ("--preset", "\x1b"),
        ("--grid", "x" * 300 + ".toml"),
    ],
)  # fmt: skip
def test_an_option_of_strange_value_is_one_message_that_no_terminal_obeys(call, option: str, value: str) -> None:
    done = call("ablate", "--preset", "smoke", "--dry-run", "--device", "cpu", option, value)
    assert done.code == 2 and done.err.startswith("ddpm-bench: ") and "\x1b" not in done.err and len(done.err) < 1000


@pytest.mark.parametrize(
    "command", [("compare", "x" * 300, "y"), ("merge", "x" * 300, "y"), ("report", "--results", "x" * 300)]
)
def test_a_name_that_no_file_can_have_is_one_message(call, command: tuple[str, ...]) -> None:
    done = call(*command)
    assert done.code == 2 and done.err.startswith("ddpm-bench: ") and "too long" in done.err


@pytest.mark.parametrize(
    "options", [("--data", "a\x1b"), ("--extractor", "a\nb"), ("--ckpt", "a\x1b"), ("--neighborhood", "5000")]
)
def test_evaluate_refuses_strange_values_before_it_reads_anything(
    call, tmp_path: Path, options: tuple[str, str]
) -> None:
    done = call("evaluate", "--ckpt", tmp_path, *options)
    assert done.code == 2 and done.err.startswith("ddpm-bench: ") and "\x1b" not in done.err


def test_the_largest_seed_is_one_that_torch_takes() -> None:
    import torch

    torch.Generator().manual_seed(LARGEST_SEED)
    with pytest.raises((ValueError, RuntimeError, OverflowError)):
        torch.Generator().manual_seed(LARGEST_SEED + 1)


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR])
def test_a_folder_that_cannot_be_made_is_a_users_mistake(tmp_path: Path, monkeypatch, number: int) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "mkdir", refuse)
    with pytest.raises(UserError, match="Choose another folder"):
        make_folder(tmp_path / "new")


def test_a_full_disk_is_no_mistake_of_the_user(tmp_path: Path, monkeypatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "mkdir", refuse)
    with pytest.raises(OSError, match="No space") as error:
        make_folder(tmp_path / "new")
    assert not isinstance(error.value, UserError)


def test_ablate_tries_the_folder_of_the_report_before_it_measures(call, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("ddpm_bench.experiment.ablate.run_jobs", lambda *_: pytest.fail("measured"))
    (tmp_path / "file").write_text("")
    done = call(
        "ablate", "--preset", "smoke", "--cells", "eps-mse-fixed", "--device", "cpu", "--results", tmp_path / "results",
        "--reports", tmp_path / "file" / "below", "--cache", tmp_path / "cache",
    )  # fmt: skip
    assert done.code == 2 and "below" in done.err and "Choose another folder" in done.err


def test_a_text_is_one_line_of_characters_that_are_seen() -> None:
    for text in ("Fashion-MNIST (embedded)", "é中文 – “q” ‰", "می\u200cخواهم", ""):
        check_plain(text)
        assert visible(text) == text
    for text in (
        "\x1b[2J",
        "a\nb",
        "\t",
        "\x00",
        "\x9b2J",
        "\ud800",
        "\u202e",
        "\u2066",
        "\u200f",
        "\u2028",
        "\ufeff",
        "\U000e0041",
    ):
        with pytest.raises(ValueError, match=r"U\+"):
            check_plain({"a": [text]})
        assert visible(f"a{text}b").isprintable() or text in "a\nb\t"
    with pytest.raises(ValueError, match="too long"):
        check_plain("x" * 10_001)
    deep: list = []
    for _ in range(50):
        deep = [deep]
    with pytest.raises(ValueError, match="deep"):
        check_plain(deep)


def test_a_message_holds_the_beginning_of_a_long_value() -> None:
    assert brief("abc") == "'abc'" and len(brief("x" * 10_000)) < 100
    assert "digits" in brief(1 << 20_000)


def test_the_terminal_spells_out_what_it_would_obey(capsys) -> None:
    PlainConsole(width=60).print("a\x1b[2Jb\u202ec")
    assert capsys.readouterr().out == "a\\x1b[2Jb\\u202ec\n"


@pytest.mark.parametrize(
    "words",
    [
        ("evaluate", "--samples", "S", "--key", "\x1b"), ("evaluate", "--samples", "S", "--neighborhood", "1" * 30),
        ("evaluate", "--samples", "S", "--reference", "S", "--reference-key", "\x1b"),
        ("evaluate", "--samples", "S", "--resize", "stretch"), ("evaluate", "--samples", "S", "--key", ""),
        ("evaluate", "--ckpt", "C", "--key", "images"), ("evaluate", "--ckpt", "C", "--data", "embedded", "--count", "1" * 30),
        ("evaluate", "--ckpt", "C", "--data", "embedded", "--evals", "1" * 30),
        ("nll", "--ckpt", "C", "--data", "é", "--resize", "pad"), ("nll", "--ckpt", "C", "--resize", "pad"),
        ("sample", "--ckpt", "C", "--out", "o.npz", "--samples", "1" * 30),
        ("sample", "--ckpt", "C", "--out", "o.npz", "--steps", "1" * 30),
        ("sample", "--ckpt", "C", "--out", "o.png", "--data", "D", "--interpolate", "9" * 5000, "0"),
        ("extractor", "train", "--name", "x", "--out", ""),
        ("extractor", "train", "--name", "x", "--out", "x.safetensors", "--sizes", "4"),
        ("extractor", "train", "--name", "x", "--out", "x.safetensors", "--sizes", "99999"),
        ("extractor", "train", "--name", "x", "--out", "x.safetensors", "--data", ""),
        ("train", "--cell", "eps-mse-fixed", "--out", "o", "--set", "data.resize=stretch"),
        ("train", "--cell", "eps-mse-fixed", "--out", "o", "--resize", ""),
        ("precision", "--ckpt", "C", "--out", "p", "--data", "embedded", "--samples", "1" * 30),
        ("gradient-noise", "--ckpt", "C", "--data", "D", "--batch", "1" * 30),
        ("gradient-noise", "--ckpt", "C", "--data", "D", "--batches", "1" * 30),
        ("gradient-noise", "--ckpt", "C", "--data", "D", "--objective", "\x1b"),
        ("gradient-noise", "--ckpt", "a\nb", "--data", "D"),
    ],
)  # fmt: skip
def test_no_option_of_any_command_ends_in_a_traceback(
    call, tmp_path: Path, monkeypatch, words: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / "s.npz", images=np.zeros((24, 16, 16), np.uint8))
    given = {"S": tmp_path / "s.npz", "C": tiny_checkpoint(tmp_path / "c"), "D": tiny_data(tmp_path / "d.npz")}
    done = call(*(given.get(word, word) for word in words), *(("--device", "cpu") if "--device" not in words else ()))
    assert done.code == 2 and "Traceback" not in done.err and "\x1b" not in done.err


def test_a_validation_error_from_anywhere_is_one_message_at_the_command_line(call, monkeypatch) -> None:
    def broken(*_: object, **__: object) -> None:
        DataSettings(size=4)

    monkeypatch.setattr("ddpm_bench.config.shipped.load_grid", broken)
    done = call("grids")
    assert done.code == 2
    assert (
        done.err
        == "ddpm-bench: What was given cannot be (DataSettings): size: should be greater than or equal to 8, not 4.\n"
    )

    def mistaken(*_: object, **__: object) -> None:
        raise ValueError("a fault of ours")

    monkeypatch.setattr("ddpm_bench.config.shipped.load_grid", mistaken)
    with pytest.raises(ValueError, match="a fault of ours"):
        call("grids")
