"""ermongroup/ddim's and pesser/pytorch_diffusion's checkpoints: against a forward pass written from their layout."""

import math
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from random_layer import put_layer
from torch import Tensor

from ddpm_bench.errors import UserError
from ddpm_bench.models.interop import UserSays, describe, import_checkpoint
from ddpm_bench.models.interop.ddim import told_by_name
from ddpm_bench.models.model import load_model

SMALL = dict(base=32, multipliers=(1, 2), blocks=1, attention=(0,))
CIFAR10 = dict(base=128, multipliers=(1, 2, 2, 2), blocks=2, attention=(1,))


def layout(
    base: int, multipliers: tuple[int, ...], blocks: int, attention: tuple[int, ...], channels: int = 3
) -> dict[str, Tensor]:
    """Their state dict with random weights. attention: the levels that have it."""
    state: dict[str, Tensor] = {}

    put = partial(put_layer, state)

    def put_block(name: str, before: int, after: int) -> None:
        put(f"{name}.norm1", before)
        put(f"{name}.conv1", after, before, 3, 3)
        put(f"{name}.temb_proj", after, 4 * base)
        put(f"{name}.norm2", after)
        put(f"{name}.conv2", after, after, 3, 3)
        if before != after:
            put(f"{name}.nin_shortcut", after, before, 1, 1)

    def put_attention(name: str, width: int) -> None:
        put(f"{name}.norm", width)
        for part in ("q", "k", "v", "proj_out"):
            put(f"{name}.{part}", width, width, 1, 1)

    put("temb.dense.0", 4 * base, base)
    put("temb.dense.1", 4 * base, 4 * base)
    put("conv_in", base, channels, 3, 3)
    for name in ("conv_in.weight", "conv_in.bias"):
        state[name] = 0.01 * state[name]  # so that the eps of the first norm matters
    width, widths, last = base, [base], len(multipliers) - 1
    for level, multiplier in enumerate(multipliers):
        for index in range(blocks):
            put_block(f"down.{level}.block.{index}", width, base * multiplier)
            width = base * multiplier
            if level in attention:
                put_attention(f"down.{level}.attn.{index}", width)
            widths.append(width)
        if level < last:
            put(f"down.{level}.downsample.conv", width, width, 3, 3)
            widths.append(width)
    put_block("mid.block_1", width, width)
    put_attention("mid.attn_1", width)
    put_block("mid.block_2", width, width)
    for level in range(last, -1, -1):
        for index in range(blocks + 1):
            put_block(f"up.{level}.block.{index}", width + widths.pop(), base * multipliers[level])
            width = base * multipliers[level]
            if level in attention:
                put_attention(f"up.{level}.attn.{index}", width)
        if level > 0:
            put(f"up.{level}.upsample.conv", width, width, 3, 3)
    put("norm_out", width)
    put("conv_out", channels, width, 3, 3)
    return state


def forward(state: dict[str, Tensor], x: Tensor, step: Tensor) -> Tensor:
    """The function that such a state dict stands for, of a 0-based step."""

    def at(name: str) -> tuple[Tensor, Tensor]:
        return state[f"{name}.weight"], state[f"{name}.bias"]

    def active(name: str, h: Tensor) -> Tensor:
        return F.silu(F.group_norm(h, 32, *at(name), eps=1e-6))

    def block(name: str, h: Tensor) -> Tensor:
        around = F.conv2d(h, *at(f"{name}.nin_shortcut")) if f"{name}.nin_shortcut.weight" in state else h
        h = F.conv2d(active(f"{name}.norm1", h), *at(f"{name}.conv1"), padding=1)
        h = h + F.linear(F.silu(temb), *at(f"{name}.temb_proj"))[:, :, None, None]
        return around + F.conv2d(active(f"{name}.norm2", h), *at(f"{name}.conv2"), padding=1)

    def attend(name: str, h: Tensor) -> Tensor:
        if f"{name}.q.weight" not in state:
            return h
        inside = F.group_norm(h, 32, *at(f"{name}.norm"), eps=1e-6)
        q, k, v = (F.conv2d(inside, *at(f"{name}.{part}")).flatten(2) for part in "qkv")
        weights = torch.softmax(q.transpose(1, 2) @ k * h.shape[1] ** -0.5, dim=2)
        return h + F.conv2d((v @ weights.transpose(1, 2)).view_as(h), *at(f"{name}.proj_out"))

    half = state["temb.dense.0.weight"].shape[1] // 2
    phase = step.float()[:, None] * torch.exp(torch.arange(half).float() * -(math.log(10_000) / (half - 1)))
    temb = F.linear(torch.cat([phase.sin(), phase.cos()], 1), *at("temb.dense.0"))
    temb = F.linear(F.silu(temb), *at("temb.dense.1"))
    levels = len({name.split(".")[1] for name in state if name.startswith("down")})
    blocks = len({name.split(".")[3] for name in state if name.startswith("down.0.block")})
    kept = [F.conv2d(x, *at("conv_in"), padding=1)]
    for level in range(levels):
        for index in range(blocks):
            kept.append(attend(f"down.{level}.attn.{index}", block(f"down.{level}.block.{index}", kept[-1])))
        if level < levels - 1:
            kept.append(F.conv2d(F.pad(kept[-1], (0, 1, 0, 1)), *at(f"down.{level}.downsample.conv"), stride=2))
    h = block("mid.block_2", attend("mid.attn_1", block("mid.block_1", kept[-1])))
    for level in reversed(range(levels)):
        for index in range(blocks + 1):
            h = block(f"up.{level}.block.{index}", torch.cat([h, kept.pop()], dim=1))
            h = attend(f"up.{level}.attn.{index}", h)
        if level > 0:
            h = h.repeat_interleave(2, 2).repeat_interleave(2, 3)
            h = F.conv2d(h, *at(f"up.{level}.upsample.conv"), padding=1)
    return F.conv2d(active("norm_out", h), *at("conv_out"), padding=1)


def saved(folder: Path, content: object, name: str = "weights.ckpt") -> str:
    (folder / name).parent.mkdir(exist_ok=True)
    torch.save(content, folder / name)
    return str(folder / name)


def trained(state: dict[str, Tensor], average: bool = True) -> list:
    """What ddim's training saves: the model inside DataParallel, the optimizer, epoch, step, and the average."""
    raw = {f"module.{name}": tensor + 0.1 for name, tensor in state.items()}
    optimizer = {
        "state": {0: {"step": 3, "exp_avg": torch.zeros(2)}},
        "param_groups": [{"lr": 2e-4, "betas": (0.9, 0.999)}],
    }
    return [raw, optimizer, 2, 5000, *([state] if average else [])]


def relative(ckpt: Path, state: dict[str, Tensor], shape: tuple[int, ...], raw: bool = False) -> float:
    """How far the converted network is from the original, relative to its output."""
    model, t, x = load_model(ckpt, raw), torch.tensor([1, 2, 501, 1000])[: shape[0]], torch.randn(shape)
    with torch.no_grad():
        expected = forward(state, x, t - 1)
        found = model.network(x, model.diffusion.schedule.network_step(t))
    return ((found - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize(
    "shape", [SMALL, SMALL | {"blocks": 2, "multipliers": (1, 3, 2), "attention": (0, 2)}, SMALL | {"channels": 1}]
)
def test_the_converted_network_gives_the_originals_output(tmp_path: Path, shape: dict) -> None:
    torch.manual_seed(0)
    state = layout(**shape)
    import_checkpoint(saved(tmp_path, state), tmp_path / "out", UserSays(size=16))
    assert relative(tmp_path / "out", state, (4, shape.get("channels", 3), 16, 16)) < 1e-5


def test_so_it_does_at_the_size_of_the_published_weights(tmp_path: Path) -> None:
    torch.manual_seed(0)
    state = layout(**CIFAR10)
    card = import_checkpoint(
        saved(tmp_path, state, "ema_diffusion_cifar10_model-790000.ckpt"), tmp_path / "out", UserSays()
    )
    assert (card.weights, card.step, card.shape, card.remarks) == ("ema", 790_000, (3, 32, 32), ())
    assert relative(tmp_path / "out", state, (2, 3, 32, 32)) < 3e-6
    assert any("35,746,307 parameters" in line for line in describe(card))


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("here/ema_diffusion_cifar10_model-790000.ckpt", ("cifar10", "ema", 790_000)),
        ("here/diffusion_cifar10_model-790000.ckpt", ("cifar10", "raw", 790_000)),
        ("ema_diffusion_lsun_church_model/model-4432000.ckpt", ("lsun_church", "ema", 4_432_000)),
        ("diffusion_lsun_cat_model/model-1761000.ckpt", ("lsun_cat", "raw", 1_761_000)),
        ("my_diffusion_cifar10_model/model-3.ckpt", (None, "unknown", 3)),
        ("logs/ckpt_5000.pth", (None, "unknown", 5000)),
        ("logs/celeba_ema.pth", (None, "ema", None)),
    ],
)
def test_names_tell_data_average_and_step(path: str, expected: tuple) -> None:
    assert told_by_name(path) == expected


@pytest.mark.parametrize(
    ("name", "shape", "side", "variance"),
    [
        ("ema_diffusion_cifar10_model/model-790000.ckpt", CIFAR10, 32, "fixed-beta"),
        (
            "ema_diffusion_lsun_bedroom_model/model-2388000.ckpt",
            dict(base=32, multipliers=(1, 1, 2, 2, 4, 4), blocks=1, attention=(4,)), 256, "fixed-beta-tilde",
        ),
    ],
)  # fmt: skip
def test_the_process_of_published_weights_is_known(tmp_path: Path, name, shape, side: int, variance: str) -> None:
    state = layout(**shape | {"base": 32})
    path = saved(tmp_path, state, name)
    card = import_checkpoint(path, tmp_path / "out", UserSays())
    process = card.process
    assert (process.schedule, process.T, process.beta_1, process.beta_T) == ("linear", 1000, 1e-4, 0.02)
    assert (process.parameterization, process.variance, card.shape, card.remarks) == (
        "eps",
        variance,
        (3, side, side),
        (),
    )
    assert card.network.attention == (16,)
    for asked, said in (
        ({"size": 64}, f"--size 64 contradicts the name of .* {side}"),
        ({"process": {"T": 50}}, "--T 50 contradicts the name of .*, which says 1000"),
    ):
        with pytest.raises(UserError, match=said):
            import_checkpoint(path, tmp_path / "again", UserSays(**asked))


def test_what_the_file_does_not_say_is_assumed_and_said_and_may_be_told(tmp_path: Path) -> None:
    path = saved(tmp_path, layout(**SMALL | {"multipliers": (1, 1, 1), "attention": (1,)}))
    card = import_checkpoint(path, tmp_path / "out", UserSays())
    assert card.shape == (3, 32, 32) and card.weights == "unknown"
    told = " ".join(describe(card))
    for assumption in (
        "--schedule linear",
        "--T 1000",
        "--beta-T 0.02",
        "--predicts eps",
        "--variance fixed-beta",
        "--size 32",
    ):
        assert assumption in told and assumption in " ".join(card.remarks)
    asked = {"schedule": "cosine", "T": 50, "parameterization": "x0", "variance": "fixed-beta-tilde"}
    other = import_checkpoint(path, tmp_path / "other", UserSays(size=64, process=asked))
    assert other.shape == (3, 64, 64) and other.network.attention == (32,) and other.remarks == ()
    assert {key: getattr(other.process, key) for key in asked} == asked


@pytest.mark.parametrize(("raw", "kind"), [(False, "ema"), (True, "raw")])
def test_of_the_list_that_training_saves_the_last_is_the_average_and_raw_takes_the_first(
    tmp_path: Path, raw, kind
) -> None:
    torch.manual_seed(0)
    state = layout(**SMALL)
    path = saved(tmp_path, trained(state), "ckpt.pth")
    card = import_checkpoint(path, tmp_path / "out", UserSays(raw=raw, size=16))
    assert (card.weights, card.step, card.source["format"]) == (kind, 5000, "ddim")
    assert any("is taken; " in remark and "optimizer" in remark for remark in card.remarks)
    expected = {name: tensor + 0.1 for name, tensor in state.items()} if raw else state
    assert relative(tmp_path / "out", expected, (4, 3, 16, 16), raw) < 1e-5


def test_a_list_without_an_average_holds_raw_weights(tmp_path: Path) -> None:
    path = saved(tmp_path, trained(layout(**SMALL), average=False), "ckpt.pth")
    with pytest.raises(UserError, match="raw, not EMA; give --raw"):
        import_checkpoint(path, tmp_path / "out", UserSays(size=16))
    assert import_checkpoint(path, tmp_path / "out", UserSays(size=16, raw=True)).weights == "raw"


@pytest.mark.parametrize(
    ("change", "shape", "said"),
    [
        (lambda s: None, {"attention": ()}, "attention at 0 levels.*Give --size"),
        (lambda s: None, {"attention": (0, 1)}, "attention at 2 levels.*Give --size"),
        (lambda s: None, {"channels": 6}, "takes 6 channels: it is an upsampler or another conditional"),
        (
            lambda s: s.update(logvar=torch.zeros(1000)),
            {},
            "logvar is not expected. Likely cause: model.type is bayesian",
        ),
        (lambda s: s.pop("mid.attn_1.k.bias"), {}, r"mid.attn_1.k.bias is missing\. It is not whole"),
        (
            lambda s: s.update({"norm_out.bias": torch.ones(5)}),
            {},
            r"norm_out.bias is \[5\] where \[32\].*another architecture",
        ),
        (lambda s: [s.pop(name) for name in list(s) if "sample" in name], {}, "resamp_with_conv False"),
        (lambda s: [s.pop(name) for name in list(s) if name.startswith("down")], {}, "has no down.0.block.0"),
        (
            lambda s: s.update({"conv_in.weight": torch.ones(48, 3, 3, 3)}),
            {},
            "widths .* are no multiples of its base of 48",
        ),
        (
            lambda s: s["conv_out.weight"].view(-1)[:2].fill_(math.nan),
            {},
            "conv_out.weight has 2 of 864 values .*not finite",
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(tmp_path: Path, change, shape: dict, said: str) -> None:
    state = layout(**SMALL | shape)
    change(state)
    with pytest.raises(UserError, match=said):
        import_checkpoint(saved(tmp_path, state), tmp_path / "out", UserSays())
    assert not (tmp_path / "out").exists()


def test_a_name_of_published_weights_on_others_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"published weights of cifar10, with multipliers \[1, 2, 2, 2\], but .* \[1, 2\]"
    ):
        import_checkpoint(
            saved(tmp_path, layout(**SMALL), "ema_diffusion_cifar10_model-1.ckpt"), tmp_path / "out", UserSays()
        )
