"""diffusers' AutoencoderKL, from its own folders, computes here what it computes there."""

import json
from pathlib import Path

import pytest
import torch

from ddpm_bench.data import autoencoders
from ddpm_bench.data.autoencoders import latents_of
from ddpm_bench.data.images import to_model
from ddpm_bench.errors import UserError
from ddpm_bench.models.interop.autoencoder_kl import keep_given, read_autoencoder

diffusers = pytest.importorskip("diffusers")

CONFIGS = {
    "f4": {
        "in_channels": 1, "out_channels": 1, "block_out_channels": (8, 16, 16), "layers_per_block": 1, "latent_channels": 3,
        "norm_num_groups": 4, "scaling_factor": 0.25,
    },
    "f2 in colour, two blocks a level": {
        "in_channels": 3, "out_channels": 3, "block_out_channels": (8, 8), "layers_per_block": 2, "latent_channels": 4,
        "norm_num_groups": 8,
    },
    "f1, without 1x1 convolutions and attention": {
        "in_channels": 3, "out_channels": 3, "block_out_channels": (8,), "layers_per_block": 1, "latent_channels": 2,
        "norm_num_groups": 2, "use_quant_conv": False, "use_post_quant_conv": False, "mid_block_add_attention": False,
    },
}  # fmt: skip


@pytest.fixture(autouse=True)
def own_store(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(autoencoders, "STORE", tmp_path / "store")


def theirs(**config):
    torch.manual_seed(0)
    levels = len(config["block_out_channels"])
    types = {
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
    }
    return diffusers.AutoencoderKL(**types, **config).eval()


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_it_encodes_and_decodes_as_diffusers_does(name: str, tmp_path: Path) -> None:
    their = theirs(**CONFIGS[name])
    their.save_pretrained(tmp_path / "vae")
    ours, scale = read_autoencoder(tmp_path / "vae")
    their, ours = (
        their.double(),
        ours.double(),
    )  # so that rounding, which norms of few numbers make larger, hides nothing
    x = torch.randn(2, CONFIGS[name]["in_channels"], 16, 16, dtype=torch.float64)
    posterior = their.encode(x).latent_dist
    mean, log_variance = ours.moments(x)
    assert (mean - posterior.mean).abs().max() < 1e-12 and (log_variance - posterior.logvar).abs().max() < 1e-12
    assert (ours.decode(mean) - their.decode(mean).sample).abs().max() < 1e-12
    assert scale == CONFIGS[name].get("scaling_factor", 0.18215)


@torch.no_grad()
def test_as_a_codec_it_has_their_scale(tmp_path: Path) -> None:
    their = theirs(**CONFIGS["f4"])
    their.save_pretrained(tmp_path / "vae")
    sha256 = keep_given(tmp_path / "vae")
    assert keep_given(tmp_path / "vae") == sha256 == keep_given(autoencoders.stored(sha256))
    codec = latents_of(sha256, "autoencoder")
    images = torch.randint(0, 256, (3, 1, 16, 16), dtype=torch.uint8)
    expected = their.encode(to_model(images)).latent_dist.mean * 0.25
    assert codec.shape((1, 16, 16)) == (3, 4, 4) and (codec.encode(images) - expected).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"shift_factor": 0.1}, "shift_factor = 0.1"),
        ({"act_fn": "relu"}, "act_fn = 'relu'"),
        ({"down_block_types": ["AttnDownEncoderBlock2D"] * 3}, "AttnDownEncoderBlock2D"),
        ({"use_quant_conv": False}, "use_post_quant_conv = True"),
        ({"out_channels": 3}, "out_channels = 3"),
        ({"block_out_channels": [8, 12, 16]}, "block_out_channels"),
        ({"codebook": 8}, "codebook"),
        ({"latent_channels": 5}, "does not fit the network"),
        ({"_class_name": "VQModel"}, "VQModel: its codebook is in the decoder"),
        ({"_class_name": "AutoencoderTiny"}, "holds a AutoencoderTiny"),
    ],
)
def test_what_ours_cannot_express_is_refused_by_name(change: dict, said: str, tmp_path: Path) -> None:
    theirs(**CONFIGS["f4"]).save_pretrained(tmp_path / "vae")
    file = tmp_path / "vae" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(UserError, match=said):
        keep_given(tmp_path / "vae")
    assert not autoencoders.STORE.exists()


def test_a_folder_without_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no config\.json"):
        keep_given(tmp_path)
