"""An LDM pipeline of diffusers with an AutoencoderKL is imported as what it is: a model of latents, and images come out of it."""

from pathlib import Path

import diffusers
import pytest
import torch
from test_interop_diffusers import edit, unet

from ddpm_bench.config.sampling import SamplingSettings
from ddpm_bench.data import autoencoders
from ddpm_bench.data.images import to_uint8
from ddpm_bench.errors import UserError
from ddpm_bench.measurement.samples import draw_samples
from ddpm_bench.models.interop import UserSays, describe, import_checkpoint
from ddpm_bench.models.model import load_model
from ddpm_bench.runtime.runtime import Runtime

SAYS = UserSays(process={"variance": "fixed-beta"})


@pytest.fixture(autouse=True)
def own_store(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(autoencoders, "STORE", tmp_path / "store")


def pipeline(folder: Path) -> diffusers.LDMPipeline:
    """Images 1x16x16, latents 4x8x8."""
    torch.manual_seed(1)
    vae = diffusers.AutoencoderKL(
        in_channels=1, out_channels=1, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, scaling_factor=0.5,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    )  # fmt: skip
    scheduler = diffusers.DDIMScheduler(
        num_train_timesteps=20, beta_start=0.0015, beta_end=0.0195, beta_schedule="scaled_linear", clip_sample=False,
        set_alpha_to_one=False,
    )  # fmt: skip
    made = diffusers.LDMPipeline(
        vqvae=vae.eval(), unet=unet(in_channels=4, out_channels=4, sample_size=8), scheduler=scheduler
    )
    made.save_pretrained(folder)
    return made


@torch.no_grad()
def test_its_network_its_autoencoder_and_its_scale_are_theirs(tmp_path: Path) -> None:
    theirs = pipeline(tmp_path / "p")
    card = import_checkpoint(str(tmp_path / "p"), tmp_path / "out", SAYS)
    assert card.shape == (1, 16, 16) and card.process.codec == "autoencoder" and card.process.schedule == "quadratic"
    assert not card.sampling.clip_x0
    model = load_model(tmp_path / "out")
    chain = model.chain(SamplingSettings(steps=4, sampler="ddim", clip_x0=False))
    assert chain.denoiser.shape == (4, 8, 8)
    x, step = torch.randn(3, 4, 8, 8), torch.tensor([0, 7, 19])
    assert (model.network(x, step) - theirs.unet(x, step).sample).abs().max() < 1e-5
    decoded = to_uint8(theirs.vqvae.decode(x / 0.5).sample)
    assert (chain.codec.decode(x).int() - decoded.int()).abs().max() <= 1  # rounded to levels
    told = "\n".join(describe(card))
    assert (
        f"x_0: 4x8x8 by the codec autoencoder, SHA-256 {card.process.autoencoder}" in told and "images 1x16x16" in told
    )
    assert "of latents of vqvae/, f = 2, scaling_factor = 0.5" in told
    drawn = draw_samples(model, SamplingSettings(samples=2, steps=4, clip_x0=False), 0, Runtime(), tmp_path / "kept")
    assert drawn.dtype == torch.uint8 and tuple(drawn.shape) == (2, 1, 16, 16)
    with pytest.raises(UserError, match="cannot be clipped"):
        model.chain(SamplingSettings())


@pytest.mark.parametrize(
    ("file", "changed", "said"),
    [
        ("model_index.json", {"vqvae": ["diffusers", "VQModel"]}, r"vqvae \(VQModel\).*no such codec"),
        ("model_index.json", {"vqvae": [None, None]}, "is of a 'LDMPipeline': "),
        ("model_index.json", {"bert": ["x", "LDMBertModel"]}, r"components beside .* bert \(LDMBertModel\)"),
        ("model_index.json", {"_class_name": "DDPMPipeline"}, r"components beside .* vqvae \(AutoencoderKL\)"),
        ("vqvae/config.json", {"shift_factor": 1.0}, "shift_factor = 1.0"),
        ("vqvae/config.json", {"_class_name": "VQModel"}, "VQModel: its codebook"),
        ("scheduler/scheduler_config.json", {"clip_sample": True}, "clip_sample = True, which would clip latents"),
        ("unet/config.json", {"in_channels": 3, "out_channels": 3}, "3 channels, and its vqvae makes latents of 4"),
    ],
)
def test_what_makes_it_another_model_is_refused_by_name(tmp_path: Path, file: str, changed: dict, said: str) -> None:
    pipeline(tmp_path / "p")
    edit(tmp_path / "p" / file, **changed)
    with pytest.raises(UserError, match=said):
        import_checkpoint(str(tmp_path / "p"), tmp_path / "out", SAYS)
    assert not (tmp_path / "out").exists() and not autoencoders.STORE.exists()


def test_its_network_alone_is_read_with_the_pipeline_around_it_and_not_without(tmp_path: Path) -> None:
    pipeline(tmp_path / "p")
    assert import_checkpoint(str(tmp_path / "p" / "unet"), tmp_path / "out", SAYS).shape == (1, 16, 16)
    (tmp_path / "p" / "model_index.json").unlink()
    with pytest.raises(UserError, match=r"in_channels = 4: images have 1 or 3.*whole pipeline"):
        says = UserSays(process={"variance": "fixed-beta", "schedule": "quadratic", "T": 20, "parameterization": "eps"})
        import_checkpoint(str(tmp_path / "p" / "unet"), tmp_path / "again", says)
