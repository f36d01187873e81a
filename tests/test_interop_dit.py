"""facebookresearch/DiT's checkpoints: against a forward pass written from the layout of their state dicts."""

import math
from argparse import Namespace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from random_layer import put_layer
from torch import Tensor

from ddpm_bench.data.codec import CODECS, Pixels
from ddpm_bench.errors import UserError
from ddpm_bench.models.interop import UserSays, describe, import_checkpoint
from ddpm_bench.models.model import load_model
from ddpm_bench.networks.condition import Condition

SMALL = dict(channels=3, learned=True, side=16, patch=4, depth=2, width=24, classes=5, ratio=2)
FLAGS = "--num_heads 3"


class Eighth(Pixels):
    """A codec of the shape of latents: 4 channels, an eighth of the side."""

    name = "eighth"

    def shape(self, images):
        channels, height, width = images
        if channels != 3 or height % 8:
            raise UserError("not these")
        return 4, height // 8, width // 8


def table(grid: int, width: int) -> Tensor:
    """(1, grid^2, width) as their `get_2d_sincos_pos_embed` has it."""
    omega = 1.0 / 10000 ** (np.arange(width // 4) / (width / 4.0))
    axes = [axis.reshape(-1, 1) * omega for axis in np.meshgrid(np.arange(grid), np.arange(grid))]
    return torch.tensor(np.concatenate([part(axis) for axis in axes for part in (np.sin, np.cos)], axis=1)).float()[
        None
    ]


def layout(
    channels: int, learned: bool, side: int, patch: int, depth: int, width: int, classes: int, ratio: int
) -> dict[str, Tensor]:
    """Their state dict with random weights."""
    state = {
        "pos_embed": table(side // patch, width),
        "y_embedder.embedding_table.weight": torch.randn(classes + 1, width),
    }
    put = partial(put_layer, state)
    put("x_embedder.proj", width, channels, patch, patch)
    put("t_embedder.mlp.0", width, 256)
    put("t_embedder.mlp.2", width, width)
    for number in range(depth):
        put(f"blocks.{number}.attn.qkv", 3 * width, width)
        put(f"blocks.{number}.attn.proj", width, width)
        put(f"blocks.{number}.mlp.fc1", ratio * width, width)
        put(f"blocks.{number}.mlp.fc2", width, ratio * width)
        put(f"blocks.{number}.adaLN_modulation.1", 6 * width, width)
    put("final_layer.linear", patch**2 * channels * (1 + learned), width)
    put("final_layer.adaLN_modulation.1", 2 * width, width)
    return state


def forward(state: dict[str, Tensor], x: Tensor, step: Tensor, labels: Tensor, heads: int) -> Tensor:
    """The function that such a state dict stands for."""

    def linear(name: str, h: Tensor) -> Tensor:
        return F.linear(h, state[f"{name}.weight"], state[f"{name}.bias"])

    def modulated(h: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        centred = h - h.mean(-1, keepdim=True)
        return centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt() * (1 + scale[:, None]) + shift[:, None]

    projection = state["x_embedder.proj.weight"]
    patch, width = projection.shape[2], len(projection)
    phase = step[:, None] * torch.exp(-math.log(10000) * torch.arange(128) / 128)
    t = linear("t_embedder.mlp.2", F.silu(linear("t_embedder.mlp.0", torch.cat([phase.cos(), phase.sin()], dim=1))))
    c = F.silu(t + state["y_embedder.embedding_table.weight"][labels])
    h = (
        F.conv2d(x, projection, state["x_embedder.proj.bias"], stride=patch).flatten(2).transpose(1, 2)
        + state["pos_embed"]
    )
    for number in range(len({name.split(".")[1] for name in state if name.startswith("blocks")})):
        name = f"blocks.{number}"
        b1, s1, g1, b2, s2, g2 = linear(f"{name}.adaLN_modulation.1", c).chunk(6, dim=1)
        qkv = linear(f"{name}.attn.qkv", modulated(h, b1, s1)).reshape(len(h), -1, 3, heads, width // heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        attended = torch.softmax(q @ k.transpose(2, 3) / math.sqrt(width // heads), dim=3) @ v
        h = h + g1[:, None] * linear(f"{name}.attn.proj", attended.transpose(1, 2).reshape(h.shape))
        inside = linear(f"{name}.mlp.fc1", modulated(h, b2, s2))
        inside = 0.5 * inside * (1 + torch.tanh(math.sqrt(2 / math.pi) * (inside + 0.044715 * inside**3)))
        h = h + g2[:, None] * linear(f"{name}.mlp.fc2", inside)
    h = linear("final_layer.linear", modulated(h, *linear("final_layer.adaLN_modulation.1", c).chunk(2, dim=1)))
    grid = math.isqrt(h.shape[1])
    h = torch.einsum("nhwpqc->nchpwq", h.reshape(len(h), grid, grid, patch, patch, -1))
    return h.reshape(len(h), -1, grid * patch, grid * patch)


def imported(tmp_path: Path, content: dict, name: str = "ckpt.pt", flags: str | None = FLAGS, **asked):
    torch.save(content, tmp_path / name)
    return import_checkpoint(str(tmp_path / name), tmp_path / "out", UserSays(flags=flags, **asked))


@pytest.mark.parametrize(
    "shape", [SMALL, SMALL | {"channels": 1, "learned": False, "patch": 2, "ratio": 4, "depth": 1}]
)
def test_the_converted_network_gives_the_originals_output(tmp_path: Path, shape: dict) -> None:
    torch.manual_seed(0)
    state, x = layout(**shape), torch.randn(3, shape["channels"], 16, 16)
    args = Namespace(model="DiT-S/2", global_batch_size=256)  # as their train.py saves it
    raw = {name: each + 1 for name, each in state.items()}
    card = imported(tmp_path, {"model": raw, "ema": state, "opt": {}, "args": args})
    model, step, labels = load_model(tmp_path / "out"), torch.tensor([0, 500, 999]), torch.tensor([0, 4, 5])
    with torch.no_grad():
        expected = forward(state, x, step, labels, heads=3)
        found = model.network(x, step, Condition(labels))
    assert (found - expected).norm() < 1e-5 * expected.norm()
    assert (card.weights, card.shape, card.source["format"]) == ("ema", (shape["channels"], 16, 16), "dit")
    assert (card.network.classes, card.network.null_class) == (5, True)


def test_the_process_is_their_default_and_what_is_assumed_is_said(tmp_path: Path) -> None:
    card = imported(tmp_path, layout(**SMALL), process={"T": 500})
    process = card.process
    assert (process.schedule, process.T, process.beta_1, process.beta_T) == ("linear", 500, 1e-4, 0.02)
    assert (process.parameterization, process.variance, process.rescale_timesteps) == ("eps", "learned-range", False)
    assert (card.weights, card.sampling.clip_x0, card.sampling.spacing) == ("unknown", False, "openai")
    assert card.remarks == (
        "assumed, since the file does not say: --schedule linear, --beta-1 0.0001, --beta-T 0.02, --predicts eps, --variance "
        "learned-range",
        "assumed, since the file does not say: the last of its 6 labels stands for no class, as in the release",
    )


def test_heads_are_those_of_the_papers_size_and_published_files_are_averages(tmp_path: Path) -> None:
    state = layout(**SMALL | {"width": 384, "depth": 1})
    card = imported(tmp_path, state, name="DiT-XL-2-256x256.pt", flags=None)
    assert (card.network.heads, card.weights) == (6, "ema")
    told = " ".join(describe(card))
    assert "classes 5" in told and "depth 1, width 384, heads 6, patch 4, mlp_ratio 2.0" in told


def test_a_network_of_latents_needs_the_codec_that_makes_them(tmp_path: Path, monkeypatch) -> None:
    state = layout(**SMALL | {"channels": 4, "side": 8, "patch": 2})
    with pytest.raises(
        UserError, match=r"takes 4 channels of 8x8: codes of an autoencoder.*Give --codec autoencoder:PATH"
    ):
        imported(tmp_path, state)
    monkeypatch.setitem(CODECS, "eighth", Eighth())
    with pytest.raises(UserError, match="which the codec 'eighth' makes of no images of side 32; correct"):
        imported(tmp_path, state, size=32, process={"codec": "eighth"})
    card = imported(tmp_path, state, process={"codec": "eighth"})
    assert (card.shape, card.process.codec) == ((3, 64, 64), "eighth")
    model = load_model(tmp_path / "out")
    assert model.whole_chain(clip_x0=False).denoiser.shape == (4, 8, 8)
    assert "x_0: 4x8x8 by the codec eighth" in " ".join(describe(card))


@pytest.mark.parametrize(
    ("change", "asked", "said"),
    [
        (lambda s: None, {"flags": None}, r'width of 24, .*384, 768, 1024, 1152.*give --flags "--num_heads N"'),
        (lambda s: None, {"flags": "--image_size 32"}, "the format dit has one flag"),
        (lambda s: None, {"flags": "--num_heads 5"}, "width 24 of a token cannot be shared out among 5 heads"),
        (lambda s: None, {"size": 32}, "which the codec 'pixels' makes of no images of side 32; correct --size"),
        (lambda s: None, {"process": {"variance": "fixed-beta"}}, "gives 6 channels for images of 3.*fixed-beta takes 3"),
        (lambda s: s["pos_embed"].add_(0.01), {}, "not their table of sines and cosines .off by 0.01"),
        (lambda s: s.update(pos_embed=torch.ones(1, 15, 24)), {}, r"pos_embed of .* is \[1, 15, 24\]"),
        (lambda s: s.pop("pos_embed"), {}, "pos_embed is missing"),
        (lambda s: s.update(pos_embed=torch.ones(1, 2**40, 24, device="meta")), {}, "names and shapes alone"),
        (lambda s: s.pop("blocks.1.mlp.fc2.bias"), {}, "blocks.1.mlp.fc2.bias is missing"),
        (lambda s: s.update({"y_embedder.y_proj.fc1.weight": torch.ones(2)}), {}, "not expected.*told texts, as PixArt"),
        (lambda s: s.update({"blocks.0.attn.q_norm.weight": torch.ones(2)}), {}, "not expected.*attention has norms"),
        (lambda s: s["final_layer.linear.bias"].fill_(math.nan), {}, "final_layer.linear.bias has 96 of 96 values"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_the_reason(tmp_path: Path, change, asked: dict, said: str) -> None:
    state = layout(**SMALL)
    change(state)
    with pytest.raises(UserError, match=said):
        imported(tmp_path, state, **asked)
    assert not (tmp_path / "out").exists()


def test_a_codec_is_refused_for_a_format_of_networks_of_images(tmp_path: Path) -> None:
    torch.save({"conv_in.weight": torch.ones(1)}, tmp_path / "theirs.ckpt")
    with pytest.raises(UserError, match="--codec is of networks of latents, and the format ddim is one of images"):
        import_checkpoint(str(tmp_path / "theirs.ckpt"), tmp_path / "out", UserSays(process={"codec": "unit"}), "ddim")
