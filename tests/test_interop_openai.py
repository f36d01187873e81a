"""OpenAI's checkpoints: the converted network against a forward pass written from the layout of their state dicts."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import typer
from harmful import Harmful
from openai_layout import forward, layout
from torch import Tensor
from typer.testing import CliRunner

from ddpm_bench.cli.imports import import_
from ddpm_bench.errors import UserError
from ddpm_bench.models.interop import UserSays, describe, import_checkpoint, openai
from ddpm_bench.models.model import load_model
from ddpm_bench.networks.condition import Condition

SMALL = dict(base=32, multipliers=(1, 2), blocks=1, attention=(1,))
FLAGS = "--image_size 16 --num_heads 4"


def saved(folder: Path, state: dict, name: str = "weights.pt") -> str:
    torch.save(state, folder / name)
    return str(folder / name)


@pytest.mark.parametrize(
    ("shape", "flags", "original"),
    [
        (SMALL, FLAGS, {}),
        (
            SMALL | {"scale_shift": False, "channels": 1, "outputs": 2},
            f"{FLAGS} --num_heads 1",
            {"heads": lambda width: 1},
        ),
        (
            SMALL | {"attention": (0, 1), "updown": True, "outputs": 6, "blocks": 2},
            "--image_size 16 --channel_mult 1,2 --num_head_channels 16 --resblock_updown True",
            {"heads": lambda width: width // 16, "halvings": [3]},
        ),
        (SMALL, f"{FLAGS} --use_new_attention_order True", {"legacy": False}),
        (SMALL | {"base": 96, "multipliers": (1,), "attention": ()}, "--image_size 16 --num_heads 4", {}),
    ],
    ids=["improved", "one head, time added, grey, learned variance", "guided", "new attention order", "one level"],
)
def test_the_converted_network_gives_the_originals_output(tmp_path: Path, shape, flags: str, original) -> None:
    torch.manual_seed(0)
    state, x = layout(**shape), torch.randn(4, shape.get("channels", 3), 16, 16)
    import_checkpoint(saved(tmp_path, state), tmp_path / "out", UserSays(flags=flags))
    model, t = load_model(tmp_path / "out"), torch.tensor([1, 2, 501, 1000])
    with torch.no_grad():
        expected = forward(state, x, t - 1, **original)
        found = model.network(x, model.diffusion.schedule.network_step(t))
    assert (found - expected).norm() < 1e-5 * expected.norm()


@pytest.mark.parametrize("scale_shift", [True, False])
def test_a_class_conditional_network_gives_the_originals_output(tmp_path: Path, scale_shift: bool) -> None:
    torch.manual_seed(0)
    state, x, labels = (
        layout(**SMALL, classes=5, scale_shift=scale_shift),
        torch.randn(4, 3, 16, 16),
        torch.tensor([4, 0, 2, 2]),
    )
    import_checkpoint(saved(tmp_path, state), tmp_path / "out", UserSays(flags=f"{FLAGS} --class_cond True"))
    model, t = load_model(tmp_path / "out"), torch.tensor([1, 2, 501, 1000])
    assert (model.network_settings.told_classes, model.network_settings.no_class) == (5, None)
    with torch.no_grad():
        expected = forward(state, x, t - 1, labels=labels)
        found = model.network(x, model.diffusion.schedule.network_step(t), Condition(labels))
    assert (found - expected).norm() < 1e-5 * expected.norm()


@pytest.mark.parametrize(("rescale", "told"), [(True, [0, 0.25, 499.75, 999.75]), (False, [0, 1, 1999, 3999])])
def test_the_network_is_told_t_1000_over_T_where_the_flags_say_so(tmp_path: Path, rescale: bool, told: list) -> None:
    torch.manual_seed(0)
    state, x = layout(**SMALL), torch.randn(4, 3, 16, 16)
    flags = f"{FLAGS} --diffusion_steps 4000 --rescale_timesteps {rescale}"
    import_checkpoint(saved(tmp_path, state), tmp_path / "out", UserSays(flags=flags))
    model = load_model(tmp_path / "out")
    steps = model.diffusion.schedule.network_step(torch.tensor([1, 2, 2000, 4000]))
    assert steps.tolist() == told
    with torch.no_grad():
        expected, found = forward(state, x, torch.tensor(told)), model.network(x, steps)
    assert (found - expected).norm() < 1e-4 * expected.norm()  # phases of thousands of radians in float32


def read(state: dict[str, Tensor], flags: str | None, name: str = "weights.pt", **asked) -> openai.Found:
    """What is made of a state dict, without files."""
    source = SimpleNamespace(given=f"models/{name}", path=Path(name), content=state)
    return openai.read(source, UserSays(flags=flags, **asked))


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda s: s.update({"middle_block.0.emb_layers.1.bias": torch.ones(64)}), True),  # half
        (lambda s: s.update({"middle_block.0.emb_layers.1.bias": torch.ones(256)}), True),
        (lambda s: s.update({"middle_block.0.emb_layers.1.bias": torch.ones(65)}), False),
        (lambda s: s.update({"middle_block.0.emb_layers.1.weight": torch.ones(64, 64)}), False),
        (lambda s: s.pop("middle_block.0.emb_layers.1.bias"), False),
        (lambda s: s.update({"middle_block.0.emb_layers.9.bias": torch.ones(64)}), False),
        (lambda s: s.update({"out.0.bias": torch.ones(64)}), False),
    ],
)
def test_a_cause_is_named_only_where_it_is_the_cause(change, cause: bool) -> None:
    state = layout(**SMALL)
    change(state)
    with pytest.raises(UserError) as caught:
        read(state, FLAGS)
    assert ("--use_scale_shift_norm" in str(caught.value)) == cause == ("Likely cause" in str(caught.value))


def test_a_network_without_a_way_up_is_a_classifier() -> None:
    state = {name: tensor for name, tensor in layout(**SMALL).items() if not name.startswith("output_blocks")}
    with pytest.raises(
        UserError,
        match="no output_blocks: it is a classifier, which `ddpm-bench classifier import` takes, or it is not",
    ):
        read(state, FLAGS)


def test_twice_the_channels_are_a_learned_range() -> None:
    found = read(layout(**SMALL, outputs=6), FLAGS)
    assert (found.process.variance, found.shape) == ("learned-range", (3, 16, 16))


def without(name: str):
    return lambda state: state.pop(name)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without("middle_block.1.qkv.bias"), "middle_block.1.qkv.bias is missing"),
        (without("input_blocks.2.0.op.weight"), "input_blocks.2.0.op.weight is missing"),
        (without("out.2.weight"), r"out.2.weight is missing\. It is not whole"),
        (without("output_blocks.1.2.conv.weight"), "input_blocks.2.0.in_layers.0.weight is missing"),
        (lambda s: s.update(extra=torch.ones(1)), "extra is not expected"),
        (lambda s: s.update({"label_emb.weight": torch.ones(9, 7)}), r"label_emb.weight is \[9, 7\] where \[9, 128\]"),
        (lambda s: s.update({"out.0.weight": torch.ones(7)}), r"out.0.weight is \[7\] where \[32\] is expected"),
        (
            lambda s: s.update({"middle_block.0.emb_layers.1.bias": torch.ones(64)}),
            r"middle_block.0.emb_layers.1.bias is \[64\] where \[128\].*--use_scale_shift_norm",
        ),
        (lambda s: s.update({"input_blocks.0.0.weight": torch.ones(16, 3, 3, 3)}), "first multiplier of 0.5"),
        (lambda s: s.update(step=3), "'step' is a int"),
    ],
)
def test_tensors_that_do_not_fit_are_named(change, said: str) -> None:
    state = layout(**SMALL)
    change(state)
    with pytest.raises(UserError, match=said):
        read(state, FLAGS)


def test_of_many_tensors_that_do_not_fit_the_first_are_named() -> None:
    state = {name: tensor for name, tensor in layout(**SMALL).items() if not name.startswith("middle_block")}
    with pytest.raises(UserError, match=r"middle_block[^;]*; middle_block[^;]*; middle_block[^;]*, and \d+ more\."):
        read(state, FLAGS)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_needs_to_be_executed_is_refused_and_not_executed(tmp_path: Path, zipped: bool) -> None:
    proof = tmp_path / "executed"
    content = layout(**SMALL) | {"time_embed.0.weight": Harmful(proof)}
    torch.save(content, tmp_path / "weights.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match=r"refused, and nothing in it was executed.*mkdir"):
        import_checkpoint(str(tmp_path / "weights.pt"), tmp_path / "out", UserSays(flags=FLAGS))
    assert not proof.exists() and not (tmp_path / "out").exists()


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("part", [0, 0.01, 0.5, 0.99])
def test_a_file_that_is_cut_off_is_refused(tmp_path: Path, zipped: bool, part: float) -> None:
    path = tmp_path / "weights.pt"
    torch.save(layout(**SMALL), path, _use_new_zipfile_serialization=zipped)
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    with pytest.raises(UserError, match="cannot be read: it is damaged"):
        import_checkpoint(str(path), tmp_path / "out", UserSays(flags=FLAGS))


@pytest.mark.parametrize(
    ("content", "said"),
    [([1, 2], "holds a list"), ({"weights": torch.ones(1)}, "first keys are weights"), ({}, "file is empty")],
)
def test_a_file_of_something_else_is_refused(tmp_path: Path, content, said: str) -> None:
    with pytest.raises(UserError, match=said):
        import_checkpoint(saved(tmp_path, content), tmp_path / "out", UserSays())


def command(*arguments: object):
    """`ddpm-bench import ...` on its own."""
    app = typer.Typer()
    app.command()(import_)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_command_says_what_was_recognised_and_writes_a_model(tmp_path: Path) -> None:
    path, out = saved(tmp_path, layout(**SMALL, outputs=6), "ema_0.9999_000300.pt"), tmp_path / "out"
    flags = f"{FLAGS} --diffusion_steps 4000 --noise_schedule cosine --rescale_timesteps True"
    done = command(path, "--out", out, "--flags", flags, "--name", "mine")
    assert done.exit_code == 0, done.output
    for said in ("mine: openai, 757,030 parameters", "3x16x16", "[8] with heads = 4", "cosine, T = 4000", "range",
                 "t * 1000 / 4000", "EMA, step 300"):  # fmt: skip
        assert said in done.stdout
    card = json.loads((out / "model.json").read_text())
    assert set(card["source"]) == {"format", "path", "sha256"} and card["source"]["path"] == "ema_0.9999_000300.pt"
    assert str(tmp_path) not in (out / "model.json").read_text()
    assert load_model(out).name == "mine"
    again = command(path, "--out", out, "--flags", flags)
    assert isinstance(again.exception, UserError) and "exists already" in str(again.exception)


def test_the_command_prints_the_card_as_json(tmp_path: Path) -> None:
    done = command(saved(tmp_path, layout(**SMALL)), "--out", tmp_path / "out", "--flags", FLAGS, "--T", 1000, "--json")
    assert json.loads(done.stdout) == json.loads((tmp_path / "out" / "model.json").read_text())


def test_a_safetensors_file_of_the_same_tensors_is_read_too(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    state = layout(**SMALL)
    save_file(state, tmp_path / "weights.safetensors")
    one = import_checkpoint(str(tmp_path / "weights.safetensors"), tmp_path / "one", UserSays(flags=FLAGS))
    import_checkpoint(saved(tmp_path, state), tmp_path / "two", UserSays(flags=FLAGS))
    one_file, two_file = ((tmp_path / out / "weights.safetensors").read_bytes() for out in ("one", "two"))
    assert one_file == two_file and any("not known whether EMA" in line for line in describe(one))


@pytest.mark.parametrize(
    ("given", "format", "said"),
    [
        ("nothing.pt", None, "no file or folder 'nothing.pt'"),
        ("weights.pt", "opneai", "no format 'opneai'; did you mean 'openai'"),
    ],
)
def test_what_is_not_there_is_said(tmp_path: Path, monkeypatch, given: str, format: str | None, said: str) -> None:
    monkeypatch.chdir(tmp_path)
    saved(tmp_path, layout(**SMALL))
    with pytest.raises(UserError, match=said):
        import_checkpoint(given, tmp_path / "out", UserSays(flags=FLAGS), format)


def test_our_own_checkpoints_need_no_import(tmp_path: Path) -> None:
    import_checkpoint(saved(tmp_path, layout(**SMALL)), tmp_path / "out", UserSays(flags=FLAGS))
    with pytest.raises(UserError, match="give it to --ckpt"):
        import_checkpoint(str(tmp_path / "out"), tmp_path / "again", UserSays())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state: state.update({3: torch.ones(1)}), "a name is a int"),
        (lambda state: state.update({"out.0.bias": [1.0]}), "'out.0.bias' is a list"),
        (lambda state: state.update({"out.2.weight": torch.tensor(1.0)}), r"out.2.weight is \[\], where 4 sizes"),
        (lambda state: state.update({"time_embed.0.weight": torch.ones(128, 0)}), r"time_embed.0.weight is \[128, 0\]"),
        (
            lambda state: state.update({"output_blocks": torch.ones(1), "output_blocks.": torch.ones(1)}),
            "these are not 2 levels",
        ),
        (lambda state: state.update({"out.0.bias": torch.ones(1).expand(2**20, 2**20)}), "views of the same numbers"),
        (lambda state: state.update({"out.0.bias": state["out.0.bias"].to("meta")}), "names and shapes alone"),
        (lambda state: state.update({"out.0.bias": state["out.0.bias"].to_sparse()}), "layout torch.sparse_coo"),
    ],
)
def test_tensors_that_are_none_of_a_network_are_named(tmp_path: Path, change: Callable, said: str) -> None:
    state = layout(**SMALL)
    change(state)
    with pytest.raises(UserError, match=said):
        import_checkpoint(saved(tmp_path, state), tmp_path / "out", UserSays(flags=FLAGS))
