"""w86763777/pytorch-ddpm's checkpoints: against a forward pass written from the layout of their state dicts."""

import math
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from harmful import Harmful
from random_layer import put_layer
from torch import Tensor

from ddpm_bench.errors import UserError
from ddpm_bench.models.interop import UserSays, import_checkpoint
from ddpm_bench.models.interop.pytorch_ddpm import TABLE
from ddpm_bench.models.model import load_model

SMALL = dict(base=32, multipliers=(1, 2), blocks=1, attention=(1,))


def table(T: int, base: int) -> Tensor:
    """(T, base): sin, cos, sin, cos, ... of t 10000^(-2i/base), as their float32 has it."""
    phase = torch.arange(T).float()[:, None] * torch.exp(-(torch.arange(0, base, 2) / base * math.log(10_000)))
    return torch.stack([phase.sin(), phase.cos()], dim=2).reshape(T, base)


def layout(
    base: int, multipliers: tuple[int, ...], blocks: int, attention: tuple[int, ...], T: int = 1000
) -> dict[str, Tensor]:  # fmt: skip
    """Their state dict with random weights. attention: the levels that have it."""
    state = {TABLE: table(T, base)}

    put = partial(put_layer, state)

    def put_block(name: str, before: int, after: int, attends: bool) -> None:
        put(f"{name}.block1.0", before)
        put(f"{name}.block1.2", after, before, 3, 3)
        put(f"{name}.temb_proj.1", after, 4 * base)
        put(f"{name}.block2.0", after)
        put(f"{name}.block2.3", after, after, 3, 3)
        if before != after:
            put(f"{name}.shortcut", after, before, 1, 1)
        if attends:
            put(f"{name}.attn.group_norm", after)
            for part in ("proj_q", "proj_k", "proj_v", "proj"):
                put(f"{name}.attn.{part}", after, after, 1, 1)

    put("time_embedding.timembedding.1", 4 * base, base)
    put("time_embedding.timembedding.3", 4 * base, 4 * base)
    put("head", base, 3, 3, 3)
    for name in ("head.weight", "head.bias"):
        state[name] = 0.01 * state[name]  # so that the eps of the first norm matters
    width, widths, number = base, [base], 0
    for level, multiplier in enumerate(multipliers):
        for _ in range(blocks):
            put_block(f"downblocks.{number}", width, base * multiplier, level in attention)
            width, number = base * multiplier, number + 1
            widths.append(width)
        if level < len(multipliers) - 1:
            put(f"downblocks.{number}.main", width, width, 3, 3)
            widths.append(width)
            number += 1
    put_block("middleblocks.0", width, width, True)
    put_block("middleblocks.1", width, width, False)
    number = 0
    for level, multiplier in reversed(list(enumerate(multipliers))):
        for _ in range(blocks + 1):
            put_block(f"upblocks.{number}", width + widths.pop(), base * multiplier, level in attention)
            width, number = base * multiplier, number + 1
        if level > 0:
            put(f"upblocks.{number}.main", width, width, 3, 3)
            number += 1
    put("tail.0", width)
    put("tail.2", 3, width, 3, 3)
    return state


def forward(state: dict[str, Tensor], x: Tensor, step: Tensor) -> Tensor:
    """The function that such a state dict stands for, of a 0-based whole step."""

    def at(name: str) -> tuple[Tensor, Tensor]:
        return state[f"{name}.weight"], state[f"{name}.bias"]

    def normal(name: str, h: Tensor) -> Tensor:
        return F.group_norm(h, 32, *at(name))

    def block(name: str, h: Tensor) -> Tensor:
        around = F.conv2d(h, *at(f"{name}.shortcut")) if f"{name}.shortcut.weight" in state else h
        h = F.conv2d(F.silu(normal(f"{name}.block1.0", h)), *at(f"{name}.block1.2"), padding=1)
        h = h + F.linear(F.silu(emb), *at(f"{name}.temb_proj.1"))[:, :, None, None]
        h = around + F.conv2d(F.silu(normal(f"{name}.block2.0", h)), *at(f"{name}.block2.3"), padding=1)
        if f"{name}.attn.proj.weight" not in state:
            return h
        inside = normal(f"{name}.attn.group_norm", h)
        q, k, v = (F.conv2d(inside, *at(f"{name}.attn.proj_{part}")).flatten(2) for part in "qkv")
        weights = torch.softmax(q.transpose(1, 2) @ k / math.sqrt(h.shape[1]), dim=2)
        return h + F.conv2d((v @ weights.transpose(1, 2)).view_as(h), *at(f"{name}.attn.proj"))

    emb = F.silu(F.linear(state[TABLE][step], *at("time_embedding.timembedding.1")))
    emb = F.linear(emb, *at("time_embedding.timembedding.3"))
    h = F.conv2d(x, *at("head"), padding=1)
    kept = [h]
    for number in range(len({name.split(".")[1] for name in state if name.startswith("downblocks")})):
        name = f"downblocks.{number}"
        halves = f"{name}.main.weight" in state
        h = F.conv2d(h, *at(f"{name}.main"), stride=2, padding=1) if halves else block(name, h)
        kept.append(h)
    h = block("middleblocks.1", block("middleblocks.0", h))
    for number in range(len({name.split(".")[1] for name in state if name.startswith("upblocks")})):
        name = f"upblocks.{number}"
        if f"{name}.main.weight" in state:
            h = F.conv2d(h.repeat_interleave(2, 2).repeat_interleave(2, 3), *at(f"{name}.main"), padding=1)
        else:
            h = block(name, torch.cat([h, kept.pop()], dim=1))
    return F.conv2d(F.silu(normal("tail.0", h)), *at("tail.2"), padding=1)


def checkpoint(state: dict[str, Tensor], size: int = 16) -> dict:
    """What their training script saves; the raw weights are another network's."""
    raw = {name: tensor if name == TABLE else tensor + 0.1 for name, tensor in state.items()}
    return {
        "net_model": raw, "ema_model": state, "sched": {"last_epoch": 7, "lr_lambdas": [None]}, "step": 7,
        "optim": {"state": {}, "param_groups": [{"lr": 2e-4, "betas": (0.9, 0.999)}]},
        "x_T": torch.zeros(2, 3, size, size),
    }  # fmt: skip


def imported(tmp_path: Path, content: dict, **asked):
    torch.save(content, tmp_path / "ckpt.pt")
    return import_checkpoint(str(tmp_path / "ckpt.pt"), tmp_path / "out", UserSays(**asked))


@pytest.mark.parametrize("shape", [SMALL, SMALL | {"blocks": 2, "multipliers": (1, 3, 2), "attention": (0, 2)}])
def test_the_converted_network_gives_the_originals_output(tmp_path: Path, shape: dict) -> None:
    torch.manual_seed(0)
    state, x = layout(**shape), torch.randn(4, 3, 16, 16)
    card = imported(tmp_path, checkpoint(state))
    model, t = load_model(tmp_path / "out"), torch.tensor([1, 2, 501, 1000])
    with torch.no_grad():
        expected = forward(state, x, t - 1)
        found = model.network(x, model.diffusion.schedule.network_step(t))
    assert (found - expected).norm() < 1e-5 * expected.norm()
    assert (card.weights, card.step, card.shape, card.source["format"]) == ("ema", 7, (3, 16, 16), "pytorch-ddpm")


def test_raw_weights_are_used_only_when_asked_for(tmp_path: Path) -> None:
    torch.manual_seed(0)
    content, x = checkpoint(layout(**SMALL)), torch.randn(1, 3, 16, 16)
    card = imported(tmp_path, content, raw=True)
    assert card.weights == "raw"
    with pytest.raises(UserError, match="give --raw"):
        load_model(tmp_path / "out")
    with torch.no_grad():
        expected = forward(content["net_model"], x, torch.tensor([5]))
        found = load_model(tmp_path / "out", raw=True).network(x, torch.tensor([5]))
    assert (found - expected).norm() < 1e-5 * expected.norm()


def test_the_process_is_their_default_but_for_what_is_asked(tmp_path: Path) -> None:
    process = imported(tmp_path, checkpoint(layout(**SMALL))).process
    assert (process.schedule, process.T, process.beta_1, process.beta_T) == ("linear", 1000, 1e-4, 0.02)
    assert (process.parameterization, process.variance, process.rescale_timesteps) == ("eps", "fixed-beta", False)
    (tmp_path / "other").mkdir()
    asked = {"parameterization": "x0", "variance": "fixed-beta-tilde", "beta_T": 0.2}
    process = imported(tmp_path / "other", checkpoint(layout(**SMALL, T=100)), process=asked).process
    assert process.T == 100 and {key: getattr(process, key) for key in asked} == asked


def test_a_bare_state_dict_does_not_say_whose_average_it_is_nor_the_size(tmp_path: Path) -> None:
    card = imported(tmp_path, layout(**SMALL))
    assert (card.weights, card.step, card.shape) == ("unknown", None, (3, 32, 32))
    assert card.network.attention == (16,)


def test_what_the_file_does_not_say_is_said_to_be_assumed(tmp_path: Path) -> None:
    card = imported(tmp_path, checkpoint(layout(**SMALL)), process={"variance": "fixed-beta-tilde"})
    taken, assumed = card.remarks
    assert taken == "the file's entry 'ema_model' is taken; passed over: net_model, sched, optim"
    assert assumed == "assumed, since the file does not say: --beta-1 0.0001, --beta-T 0.02, --predicts eps"
    (tmp_path / "bare").mkdir()
    bare = imported(tmp_path / "bare", layout(**SMALL), size=16)
    assert bare.shape == (3, 16, 16) and not any("--size" in remark for remark in bare.remarks)
    (tmp_path / "unsaid").mkdir()
    unsaid = imported(tmp_path / "unsaid", layout(**SMALL))
    assert unsaid.shape == (3, 32, 32) and "assumed, since the file does not say: --size 32" in unsaid.remarks


def edit(state: str = "ema_model", **tensors):
    return lambda content: content[state].update({name.replace("__", "."): value for name, value in tensors.items()})


@pytest.mark.parametrize(
    ("change", "asked", "said"),
    [
        (lambda c: None, {"process": {"T": 500}}, "--T 500 contradicts .*, which says 1000"),
        (lambda c: None, {"process": {"schedule": "cosine"}}, "--schedule cosine contradicts .* linear"),
        (lambda c: None, {"process": {"variance": "learned-range"}}, "3 channels for .* 3.*learned-range takes 6"),
        (lambda c: None, {"process": {"variance": "fixed-bta"}}, "no variance 'fixed-bta'; did you mean 'fixed-beta'"),
        (lambda c: None, {"flags": "--T 1000"}, "--flags belongs to the format openai"),
        (lambda c: None, {"weights": "raw"}, "--weights raw contradicts"),
        (lambda c: c.pop("ema_model"), {}, "'net_model' of .* raw, not EMA; give --raw"),
        (lambda c: c.pop("net_model"), {"raw": True}, "'ema_model' of .* says EMA; leave --raw out"),
        (lambda c: c.update(ema_model=3), {}, "'net_model' of .* raw, not EMA; give --raw"),
        (lambda c: c.update(x_T=torch.zeros(2, 3, 16, 8)), {}, r"x_T of .* is \[2, 3, 16, 8\]; square"),
        (lambda c: c["ema_model"][TABLE].add_(0.01), {}, "not their table .*off by 0.01"),
        (edit(**{TABLE: torch.ones(1000, 16)}), {}, r"is \[1000, 16\]; \(T, 32\)"),
        (edit(head__weight=torch.ones(64, 3, 3, 3)), {}, r"\(T, 64\)"),
        (edit(tail__0__bias=torch.ones(5)), {}, r"tail.0.bias is \[5\] where \[32\] is expected"),
        (
            edit(label_emb__weight=torch.ones(5)),
            {},
            "label_emb.weight is not expected.*Likely cause: class-conditional",
        ),
        (lambda c: c["ema_model"].pop("tail.2.bias"), {}, r"tail.2.bias is missing\. It is not whole"),
        (lambda c: c["ema_model"].pop("downblocks.0.block2.3.weight"), {}, "downblocks.0.block2.3.weight is missing"),
        (lambda c: None, {"size": 32}, "--size 32 contradicts x_T of .*, which says 16"),
        (edit(second__weight=torch.ones(5)), {}, r"second.weight is not expected\. It is another architecture"),
        (edit(tail__0__bias=torch.full((32,), math.nan)), {}, "tail.0.bias has 32 of 32 values that are not finite"),
        (edit(head__weight=torch.ones(32, 6, 3, 3)), {}, "takes 6 channels"),
        (lambda c: c["ema_model"].pop("head.weight"), {}, "head.weight is missing"),
        (lambda c: c["ema_model"].pop("downblocks.2.attn.proj_k.weight"), {}, "downblocks.2.*proj_k.weight is missing"),
        (lambda c: c["ema_model"].pop("downblocks.1.main.weight"), {}, r"and [0-9]+ more\. It is not whole"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(tmp_path: Path, change, asked: dict, said: str) -> None:
    content = checkpoint(layout(**SMALL))
    change(content)
    with pytest.raises(UserError, match=said):
        imported(tmp_path, content, **asked)
    assert not (tmp_path / "out").exists()


def test_a_pickle_that_needs_to_be_executed_is_refused_and_not_executed(tmp_path: Path) -> None:
    proof = tmp_path / "executed"
    with pytest.raises(UserError, match=r"refused, and nothing in it was executed.*mkdir"):
        imported(tmp_path, checkpoint(layout(**SMALL)) | {"sched": Harmful(proof)})
    assert not proof.exists() and not (tmp_path / "out").exists()
