"""A DiT pipeline of diffusers is imported as the release's transformer, with its autoencoder, and its differences are said."""

from pathlib import Path

import diffusers
import pytest
import torch
from test_dit import SMALL, copy_weights, reference, shaken
from test_interop_diffusers import edit

from ddpm_bench.data import autoencoders
from ddpm_bench.errors import UserError
from ddpm_bench.models.interop import UserSays, describe, import_checkpoint
from ddpm_bench.models.model import load_model
from ddpm_bench.networks.condition import Condition
from ddpm_bench.networks.dit import DiT

SETTINGS = SMALL.model_copy(update={"depth": 2})
TRANSFORMER, INDEX, SCHEDULER = "transformer/config.json", "model_index.json", "scheduler/scheduler_config.json"

PROCESS = {"variance": "learned-range", "schedule": "linear", "T": 20, "parameterization": "eps"}


@pytest.fixture(autouse=True)
def own_store(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(autoencoders, "STORE", tmp_path / "store")


def pipeline(folder: Path, outputs: int = 8) -> diffusers.DiTTransformer2DModel:
    """Images 1x16x16, latents 4x8x8; the transformer has the release's frequencies. What is saved does not tell them."""
    torch.manual_seed(1)
    vae = diffusers.AutoencoderKL(
        in_channels=1, out_channels=1, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, scaling_factor=0.5,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    )  # fmt: skip
    theirs = reference(SETTINGS, 4, outputs, 8)
    copy_weights(shaken(DiT(4, outputs, 8, SETTINGS)), theirs)
    scheduler = diffusers.DDIMScheduler(num_train_timesteps=20, beta_start=0.01, beta_end=0.3, clip_sample=False)
    diffusers.DiTPipeline(transformer=theirs, vae=vae.eval(), scheduler=scheduler).save_pretrained(folder)
    edit(folder / INDEX, id2label={"0": "tench"})  # as the published ones have it
    return theirs.eval()


def pixels(folder: Path) -> diffusers.DiTTransformer2DModel:
    """The transformer alone, of images 1x16x16."""
    theirs = reference(SETTINGS, 1, 2, 16)
    copy_weights(shaken(DiT(1, 2, 16, SETTINGS)), theirs)
    theirs.save_pretrained(folder)
    return theirs.eval()


@torch.no_grad()
def test_its_network_is_theirs_and_what_differs_is_said(tmp_path: Path) -> None:
    theirs = pipeline(tmp_path / "p")
    card = import_checkpoint(str(tmp_path / "p"), tmp_path / "out", UserSays())
    model = load_model(tmp_path / "out")
    assert (card.shape, card.process.codec, card.process.variance) == ((1, 16, 16), "autoencoder", "learned-range")
    assert card.network == SETTINGS and not card.sampling.clip_x0
    x, step, labels = torch.randn(3, 4, 8, 8), torch.tensor([0, 7, 19]), torch.tensor([0, 4, 5])
    found, expected = model.network(x, step, Condition(labels)), theirs(x, step, labels).sample
    assert (found - expected).norm() < 1e-5 * expected.norm()
    told = "\n".join(describe(card))
    for remark in (
        "10000^(-i / 127)", "a norm with eps = 1e-06", "(id2label) are not used", "--variance learned-range", "of latents of vae/",
    ):  # fmt: skip
        assert remark in told


def test_files_of_old_versions_are_of_the_same_network(tmp_path: Path) -> None:
    pipeline(tmp_path / "p", outputs=4)
    edit(
        tmp_path / "p" / TRANSFORMER,
        _class_name="Transformer2DModel",
        cross_attention_dim=None,
        use_linear_projection=False,
    )
    edit(tmp_path / "p" / INDEX, transformer=["diffusers", "Transformer2DModel"])
    says = UserSays(process={"variance": "fixed-beta"})
    card = import_checkpoint(str(tmp_path / "p" / "transformer"), tmp_path / "out", says)
    assert card.network == SETTINGS and card.shape == (1, 16, 16)


@pytest.mark.parametrize(
    ("file", "changed", "said"),
    [
        (TRANSFORMER, {"norm_type": "ada_norm_single"}, "norm_type = 'ada_norm_single'"),
        (TRANSFORMER, {"activation_fn": "geglu"}, "activation_fn = 'geglu'"),
        (TRANSFORMER, {"num_layers": 1}, "transformer_blocks.1.* is not expected"),
        (TRANSFORMER, {"out_channels": 12}, "gives 12 channels for images of 4"),
        (INDEX, {"vae": ["diffusers", "AutoencoderKLWan"]}, r"is of a 'DiTPipeline' with vae \(AutoencoderKLWan\)"),
        (
            INDEX,
            {"transformer": ["diffusers", "PixArtTransformer2DModel"]},
            "has the transformer PixArtTransformer2DModel",
        ),
        (INDEX, {"text_encoder": ["x", "T5"]}, r"components beside transformer and scheduler, .*text_encoder \(T5\)"),
        (INDEX, {"transformer": None}, "has transformer = None"),
        (SCHEDULER, {"clip_sample": True}, "would clip latents"),
    ],
)
def test_what_makes_it_another_model_is_refused_by_name(tmp_path: Path, file: str, changed: dict, said: str) -> None:
    pipeline(tmp_path / "p")
    edit(tmp_path / "p" / file, **changed)
    with pytest.raises(UserError, match=said):
        import_checkpoint(str(tmp_path / "p"), tmp_path / "out", UserSays(process={"variance": "learned-range"}))
    assert not (tmp_path / "out").exists()


def test_embeddings_that_blocks_have_of_their_own_are_refused(tmp_path: Path) -> None:
    theirs = pipeline(tmp_path / "p")
    with torch.no_grad():
        theirs.transformer_blocks[1].norm1.emb.timestep_embedder.linear_2.bias[3] += 0.1
    theirs.save_pretrained(tmp_path / "p" / "transformer")
    with pytest.raises(
        UserError, match=r"linear_2.bias is not equal .* so transformer_blocks.1 is told step and class by"
    ):
        import_checkpoint(str(tmp_path / "p"), tmp_path / "out", UserSays())


def test_a_transformer_alone_is_of_pixels_or_needs_the_pipeline_around_it(tmp_path: Path) -> None:
    pixels(tmp_path / "alone")
    card = import_checkpoint(str(tmp_path / "alone"), tmp_path / "out", UserSays(process=PROCESS))
    assert (card.shape, card.network, card.process.codec) == ((1, 16, 16), SETTINGS, "pixels")
    pipeline(tmp_path / "p")
    (tmp_path / "p" / INDEX).unlink()
    with pytest.raises(UserError, match="whole pipeline"):
        import_checkpoint(str(tmp_path / "p" / "transformer"), tmp_path / "again", UserSays(process=PROCESS))
