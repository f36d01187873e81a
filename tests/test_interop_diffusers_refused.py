"""diffusers' folders that are refused: what cannot be expressed, does not fit, is damaged or is something else is named."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from harmful import Harmful
from safetensors.torch import load_file, save_file
from test_interop_diffusers import FULL, edit, pipeline

from ddpm_bench.errors import UserError
from ddpm_bench.models.interop import UserSays, import_checkpoint


def refused(folder: Path, said: str) -> None:
    with pytest.raises(UserError, match=said):
        import_checkpoint(str(folder), folder.parent / "out", UserSays())


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"time_embedding_type": "fourier"}, "time_embedding_type = 'fourier'"),
        ({"act_fn": "gelu"}, "act_fn = 'gelu'"),
        ({"add_attention": False}, "add_attention = False"),
        ({"num_class_embeds": 10}, "num_class_embeds = 10"),
        ({"class_embed_type": "timestep"}, "class_embed_type = 'timestep'"),
        ({"center_input_sample": True}, "center_input_sample = True"),
        ({"mid_block_scale_factor": 1.4}, "mid_block_scale_factor = 1.4"),
        ({"mid_block_type": None}, "mid_block_type = None"),
        ({"freq_shift": 2}, "freq_shift = 2"),
        ({"down_block_types": ["SkipDownBlock2D", "DownBlock2D"]}, "down_block_types.0 = 'SkipDownBlock2D'"),
        ({"something_new": 1}, "something_new = 1"),
        ({"sample_size": ...}, "sample_size.*required"),
        ({"sample_size": [16, 32]}, "sample_size 16x32.*square"),
        ({"_class_name": "UNet2DConditionModel"}, "is of a UNet2DConditionModel"),
        ({"up_block_types": ["UpBlock2D", "UpBlock2D"]}, "up_block_types .* must mirror"),
        ({"block_out_channels": [16, 24]}, r"block_out_channels = \(16, 24\).*multiples of the first"),
        ({"time_embedding_dim": 32}, "time_embedding_dim = 32.*four times the first width, 64"),
        ({"attn_norm_num_groups": 4}, "attn_norm_num_groups = 4.*must be norm_num_groups, 8"),
        ({"resnet_time_scale_shift": "scale_shift"}, "attn_norm_num_groups = None.*must be norm_num_groups"),
        ({"upsample_type": "resnet"}, "joined in two ways"),
        ({"layers_per_block": 10**9}, "blocks = 1000000000"),
        ({"block_out_channels": []}, r"block_out_channels = \(\)|block_out_channels = \[\]"),
        ({"block_out_channels": [0, 16]}, "block_out_channels.0 = 0"),
        ({"in_channels": 4}, "in_channels = 4"),
        ({"sample_size": 2**40}, "of 8 to 1024 pixels a side"),
        ({"norm_num_groups": 0, "attn_norm_num_groups": 0}, "groups = 0"),
        ({"attention_head_dim": 5}, "32 channels of a level .* head_channels = 5"),
        ({"layers_per_block": 2}, r"down_blocks.0.resnets.1.norm1.weight is missing"),
        ({"out_channels": 4}, "gives 4 channels for images of 3"),
        ({"in_channels": 1, "out_channels": 1}, r"conv_in.weight is \[16, 3, 3, 3\] where \[16, 1, 3, 3\]"),
    ],
)
def test_a_configuration_that_cannot_be_expressed_is_refused_by_name_and_value(tmp_path, changed, said: str) -> None:
    folder = pipeline(tmp_path / "p")
    edit(folder / "unet" / "config.json", **changed)
    refused(folder, said)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"prediction_type": "v_prediction"}, "prediction_type = 'v_prediction'"),
        ({"variance_type": "learned"}, "variance_type = 'learned'"),
        ({"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr = True"),
        ({"trained_betas": [0.1, 0.2]}, r"trained_betas = \[0.1, 0.2\]"),
        ({"beta_schedule": "sigmoid"}, "beta_schedule = 'sigmoid'"),
        ({"thresholding": True}, "thresholding = True"),
        ({"_class_name": "ScoreSdeVeScheduler"}, "is of a ScoreSdeVeScheduler.*save the pipeline"),
    ],
)
def test_a_process_that_is_not_known_is_refused_by_name_and_value(tmp_path: Path, changed: dict, said: str) -> None:
    folder = pipeline(tmp_path / "p")
    edit(folder / "scheduler" / "scheduler_config.json", **changed)
    refused(folder, said)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state: state.pop("conv_in.bias"), "conv_in.bias is missing"),
        (lambda state: state.update(extra=torch.ones(1)), "extra is not expected"),
        (lambda state: state.update({"class_embedding.weight": torch.ones(1)}), "Likely cause: class-conditional"),
        (lambda state: state.update({"conv_in.bias": torch.ones(3)}), r"conv_in.bias is \[3\] where \[16\]"),
        (lambda state: state.pop("mid_block.attentions.0.to_k.weight"), "attentions.0.to_k.weight is missing"),
    ],
)
def test_weights_that_do_not_fit_are_named(tmp_path: Path, change: Callable, said: str) -> None:
    weights = pipeline(tmp_path / "p") / "unet" / "diffusion_pytorch_model.safetensors"
    state = load_file(weights)
    change(state)
    save_file(state, weights)
    refused(tmp_path / "p", said)


@pytest.mark.parametrize(
    ("index", "said"),
    [
        (
            {"_class_name": "LDMPipeline", "vqvae": ["diffusers", "VQModel"]},
            r"is of a 'LDMPipeline' with vqvae \(VQModel\)",
        ),
        ({"vqvae": ["diffusers", "VQModel"]}, r"components beside unet and scheduler, vqvae \(VQModel\)"),
        (
            {"bert": ["latent_diffusion", "LDMBertModel"]},
            r"bert \(LDMBertModel\): .* unconditional DDPM and DDIM pipelines",
        ),
        ({"safety_checker": None}, r"safety_checker \(None\)"),
        (
            {"_class_name": "DiTPipeline", "unet": ..., "transformer": ["diffusers", "DiTTransformer2DModel"]},
            "a 'DiTPipeline'",
        ),
        ({"_class_name": "ScoreSdeVePipeline"}, "is of a 'ScoreSdeVePipeline'"),
        ({"_class_name": ...}, "is of a None"),
        ({"unet": ["diffusers", "UNet2DConditionModel"]}, "has the unet UNet2DConditionModel"),
        ({"unet": ["my_code", "UNet2DModel"]}, "which is not a class of diffusers"),
        ({"unet": "UNet2DModel"}, "unet = 'UNet2DModel', which is not a class"),
        ({"unet": [None, None]}, "has no unet: it is not whole"),
        ({"scheduler": ...}, "has no scheduler: it is not whole"),
        ({"_something": 1}, "has the keys _something, whose meaning is not known"),
    ],
)
@pytest.mark.parametrize("within", ["", "unet"])
def test_a_pipeline_of_anything_but_pixels_without_conditions_is_refused_by_name(tmp_path, index, said, within) -> None:
    folder = pipeline(tmp_path / "p")
    edit(folder / "model_index.json", **index)
    if within and index.get("unet") is ...:
        return  # a folder that the index does not name is no part of it
    with pytest.raises(UserError, match=said):
        import_checkpoint(str(folder / within), tmp_path / "out", UserSays())
    assert not (tmp_path / "out").exists()


def test_a_scheduler_that_is_not_there_is_refused_and_another_class_is_said(tmp_path: Path) -> None:
    folder = pipeline(tmp_path / "p")
    edit(folder / "model_index.json", scheduler=["diffusers", "DDIMScheduler"])
    [remark] = import_checkpoint(str(folder), tmp_path / "out", UserSays()).remarks
    assert (
        remark.startswith("scheduler_config.json is of a 'DDPMScheduler' and is followed")
        and "a DDIMScheduler" in remark
    )
    (folder / "scheduler" / "scheduler_config.json").unlink()
    with pytest.raises(UserError, match=r"names a scheduler, but there is no scheduler/scheduler_config.json"):
        import_checkpoint(str(folder), tmp_path / "again", UserSays())


def test_models_beside_the_network_are_refused_or_said(tmp_path: Path) -> None:
    folder = pipeline(tmp_path / "p")
    shutil.copytree(folder / "unet", folder / "unet_ema")
    card = import_checkpoint(str(folder), tmp_path / "out", UserSays())
    assert card.remarks == ("no part of the pipeline and passed over: unet_ema/ ('UNet2DModel')",)
    (folder / "model_index.json").unlink()
    with pytest.raises(UserError, match=r"several networks, its own and unet_ema/ .*give the folder of the one"):
        import_checkpoint(str(folder), tmp_path / "two", UserSays())
    edit(folder / "unet_ema" / "config.json", _class_name="VQModel")
    with pytest.raises(UserError, match=r"models beside its network, unet_ema/ \('VQModel'\)"):
        import_checkpoint(str(folder), tmp_path / "two", UserSays())
    shutil.rmtree(folder / "unet_ema")
    shutil.copy(folder / "unet" / "config.json", folder)
    with pytest.raises(UserError, match="a network at its top and another in unet/"):
        import_checkpoint(str(folder), tmp_path / "two", UserSays())


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda s: s.update({"mid_block.resnets.0.time_emb_proj.bias": torch.ones(64)}), "resnet_time_scale_shift"),
        (lambda s: s.update({"mid_block.resnets.0.time_emb_proj.bias": torch.ones(33)}), None),
        (lambda s: s.update({"class_embedding.weight": torch.ones(4)}), "class-conditional"),
        (lambda s: s.update({"mid_block.class_embedding": torch.ones(4)}), None),
        (lambda s: s.update({"conv_in.lora_layer.up.weight": torch.ones(4)}), "LoRA"),
    ],
)
def test_a_cause_is_named_only_where_it_is_the_cause(tmp_path: Path, change: Callable, cause: str | None) -> None:
    weights = pipeline(tmp_path / "p") / "unet" / FULL
    state = load_file(weights)
    change(state)
    save_file(state, weights)
    with pytest.raises(UserError) as caught:
        import_checkpoint(str(tmp_path / "p"), tmp_path / "out", UserSays())
    assert (f"Likely cause: {cause}" in str(caught.value) or f"another {cause}" in str(caught.value)) == bool(cause)
    assert ("Likely cause" in str(caught.value)) == bool(cause)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"key": "ema"}, "--key ema chooses an entry of a file; diffusers has none"),
        ({"size": 32}, "--size 32 contradicts sample_size of .*, which says 16"),
        ({"flags": "--image_size 16"}, "--flags belongs to the format openai"),
    ],
)
def test_options_of_other_formats_are_refused(tmp_path: Path, asked: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        import_checkpoint(str(pipeline(tmp_path / "p")), tmp_path / "out", UserSays(**asked))


def test_half_precision_that_overflowed_is_refused_by_name_and_count(tmp_path: Path) -> None:
    weights = pipeline(tmp_path / "p") / "unet" / FULL
    state = load_file(weights)
    state["conv_in.bias"] = torch.full_like(state["conv_in.bias"], 1e6).half()
    save_file(state, weights)
    with pytest.raises(
        UserError, match=r"'diffusion_pytorch_model.safetensors' of .*: conv_in.bias has 16 of 16 values"
    ):
        import_checkpoint(str(tmp_path / "p"), tmp_path / "out", UserSays())


@pytest.mark.parametrize("part", [0, 0.1, 0.9])
def test_weights_that_are_cut_off_are_refused(tmp_path: Path, part: float) -> None:
    weights = pipeline(tmp_path / "p") / "unet" / "diffusion_pytorch_model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[: int(part * len(content))])
    with pytest.raises(UserError, match="cannot be read: it is damaged"):
        import_checkpoint(str(tmp_path / "p"), tmp_path / "out", UserSays())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda p: (p / "unet" / "config.json").write_text("{"), "config.json' cannot be read"),
        (lambda p: (p / "unet" / "config.json").write_text("[]"), "is not a configuration"),
        (lambda p: (p / "unet" / "config.json").unlink(), "neither config.json nor unet/config.json"),
        (
            lambda p: (p / "unet" / "diffusion_pytorch_model.safetensors").rename(p / "unet" / "other.safetensors"),
            "no diffusion_pytorch_model.safetensors beside config.json, but other.safetensors",
        ),
    ],
)
def test_a_folder_that_is_not_whole_is_refused(tmp_path: Path, change: Callable, said: str) -> None:
    change(pipeline(tmp_path / "p"))
    refused(tmp_path / "p", said)


def test_pickled_weights_that_need_to_be_executed_are_refused_and_not_executed(tmp_path: Path) -> None:
    folder, proof = pipeline(tmp_path / "p"), tmp_path / "executed"
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    torch.save({"conv_in.weight": Harmful(proof)}, folder / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(UserError, match=r"refused, and nothing in it was executed.*mkdir"):
        import_checkpoint(str(folder), tmp_path / "out", UserSays())
    assert not proof.exists()


def test_options_that_repeat_the_scheduler_pass_and_others_are_contradictions(tmp_path: Path) -> None:
    folder = pipeline(tmp_path / "p")
    import_checkpoint(str(folder), tmp_path / "out", UserSays(process={"variance": "fixed-beta", "T": 1000}))
    with pytest.raises(UserError, match=r"--variance fixed-beta-tilde contradicts .*, which says fixed-beta"):
        import_checkpoint(str(folder), tmp_path / "again", UserSays(process={"variance": "fixed-beta-tilde"}))


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"folder has no config\.json"):
        import_checkpoint(str(tmp_path), tmp_path / "out", UserSays())
