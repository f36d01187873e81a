"""diffusers' folders: the converted network against diffusers' own forward pass, with random weights, and what else is read."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import diffusers
import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ddpm_bench.errors import UserError
from ddpm_bench.models.interop import UserSays, import_checkpoint
from ddpm_bench.models.model import load_model

CIFAR10 = dict(attention_head_dim=None, norm_eps=1e-6, downsample_padding=0, flip_sin_to_cos=False, freq_shift=1)
"""What google/ddpm-cifar10-32 has, against the defaults."""


def unet(attention: tuple[bool, ...] = (False, True), **changed) -> diffusers.UNet2DModel:
    """A small one with random weights; `changed` are keys of its configuration."""
    torch.manual_seed(0)
    settings = dict(
        sample_size=16, in_channels=3, out_channels=3, layers_per_block=1,
        block_out_channels=tuple(16 * (i + 1) for i in range(len(attention))), norm_num_groups=8,
        down_block_types=tuple("AttnDownBlock2D" if a else "DownBlock2D" for a in attention),
        up_block_types=tuple("AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attention)),
    )  # fmt: skip
    model = diffusers.UNet2DModel(**settings | changed).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def pipeline(folder: Path, model: diffusers.UNet2DModel | None = None, **scheduler) -> Path:
    """A pipeline's folder, as save_pretrained leaves it."""
    scheduler = diffusers.DDPMScheduler(**{"variance_type": "fixed_large"} | scheduler)
    diffusers.DDPMPipeline(model or unet(), scheduler).save_pretrained(folder)
    return folder


def edit(file: Path, **changed) -> None:
    """Change keys of a JSON file; Ellipsis removes one."""
    content = json.loads(file.read_text()) | changed
    file.write_text(json.dumps({key: value for key, value in content.items() if value is not ...}))


@pytest.mark.parametrize(
    "model",
    [
        lambda: unet(),
        lambda: unet(**CIFAR10),
        lambda: unet((False, True, False), layers_per_block=2, attention_head_dim=16, flip_sin_to_cos=False),
        lambda: unet(in_channels=1, out_channels=1, block_out_channels=(24, 48), freq_shift=1),
        lambda: unet(resnet_time_scale_shift="scale_shift", attn_norm_num_groups=8, norm_eps=0.1),
        lambda: unet((True, True), downsample_type="resnet", upsample_type="resnet"),
        lambda: unet((True, False), down_block_types=("ResnetDownsampleBlock2D", "DownBlock2D"),
                     up_block_types=("ResnetUpsampleBlock2D", "UpBlock2D")),
    ],
    ids=["defaults", "cifar10", "heads, three levels", "grey", "scale and shift", "resnet", "resnet blocks"],
)  # fmt: skip
def test_the_converted_network_gives_the_originals_output(tmp_path: Path, model: Callable) -> None:
    theirs = model()
    channels = theirs.config.in_channels
    import_checkpoint(str(pipeline(tmp_path / "pipeline", theirs)), tmp_path / "out", UserSays())
    ours, t = load_model(tmp_path / "out"), torch.tensor([1, 2, 501, 1000])
    x = torch.randn(4, channels, 16, 16)
    with torch.no_grad():
        expected = theirs(x, t - 1).sample
        found = ours.network(x, ours.diffusion.schedule.network_step(t))
    assert (found - expected).norm() < 1e-5 * expected.norm()


def old_attention(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The names that diffusers had before 0.15."""
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def old(name: str) -> str:
        for new, before in names.items():
            name = name.replace(f".{new}.", f".{before}.")
        return name

    return {old(name): tensor for name, tensor in state.items()}


def test_old_names_pickled_weights_and_files_at_the_top_are_read_too(tmp_path: Path) -> None:
    folder = pipeline(tmp_path / "new")
    import_checkpoint(str(folder), tmp_path / "one", UserSays())
    old = tmp_path / "old"  # as google/ddpm-cifar10-32 is laid out
    old.mkdir()
    state = old_attention(load_file(folder / "unet" / "diffusion_pytorch_model.safetensors"))
    assert any("query" in name for name in state)
    torch.save(state, old / "diffusion_pytorch_model.bin")
    (folder / "unet" / "config.json").rename(old / "config.json")
    (folder / "scheduler" / "scheduler_config.json").rename(old / "scheduler_config.json")
    import_checkpoint(str(old), tmp_path / "two", UserSays())
    one, two = (load_model(tmp_path / out).network.state_dict() for out in ("one", "two"))
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize(
    ("scheduler", "expected"),
    [
        ({}, {"schedule": "linear", "T": 1000, "beta_1": 1e-4, "beta_T": 0.02, "variance": "fixed-beta"}),
        ({"variance_type": "fixed_small"}, {"variance": "fixed-beta-tilde", "parameterization": "eps"}),
        ({"variance_type": "fixed_small_log"}, {"variance": "fixed-beta-tilde"}),
        ({"beta_schedule": "squaredcos_cap_v2"}, {"schedule": "cosine"}),
        ({"beta_schedule": "scaled_linear", "beta_start": 1e-3, "beta_end": 0.1}, {"beta_1": 1e-3, "beta_T": 0.1}),
        ({"prediction_type": "sample", "num_train_timesteps": 50}, {"parameterization": "x0", "T": 50}),
    ],
)
def test_the_scheduler_decides_the_process(tmp_path: Path, scheduler: dict, expected: dict) -> None:
    card = import_checkpoint(str(pipeline(tmp_path / "p", **scheduler)), tmp_path / "out", UserSays())
    assert {key: getattr(card.process, key) for key in expected} == expected
    betas = load_model(tmp_path / "out").diffusion.schedule.betas
    torch.testing.assert_close(betas.float(), diffusers.DDPMScheduler(**scheduler).betas, rtol=1e-4, atol=1e-8)


def test_a_learned_range_takes_twice_the_channels(tmp_path: Path) -> None:
    folder = pipeline(tmp_path / "p", unet(out_channels=6), variance_type="learned_range")
    assert import_checkpoint(str(folder), tmp_path / "out", UserSays()).process.variance == "learned-range"
    edit(folder / "scheduler" / "scheduler_config.json", variance_type="fixed_large")
    with pytest.raises(UserError, match="gives 6 channels for images of 3, but variance fixed-beta takes 3"):
        import_checkpoint(str(folder), tmp_path / "again", UserSays())


def test_keys_that_are_left_out_take_diffusers_defaults(tmp_path: Path) -> None:
    folder = pipeline(tmp_path / "p", unet(norm_num_groups=16))
    config = folder / "unet" / "config.json"
    kept = ("sample_size", "block_out_channels", "layers_per_block", "norm_num_groups")
    kept += ("down_block_types", "up_block_types")
    content = json.loads(config.read_text())
    config.write_text(json.dumps({key: content[key] for key in kept}))
    (folder / "scheduler" / "scheduler_config.json").write_text("{}")
    card = import_checkpoint(str(folder), tmp_path / "out", UserSays())
    assert (card.network.head_channels, card.network.padding, card.network.time_shift) == (8, "both", 0)
    assert (card.process.T, card.process.variance) == (1000, "fixed-beta-tilde")


def test_a_bare_network_needs_to_be_told_its_process(tmp_path: Path) -> None:
    unet().save_pretrained(tmp_path / "bare")
    with pytest.raises(UserError, match=r"give --schedule, --T, --predicts, --variance\."):
        import_checkpoint(str(tmp_path / "bare"), tmp_path / "out", UserSays())
    process = {"schedule": "linear", "T": 200, "parameterization": "x0", "variance": "fixed-beta", "beta_T": 0.1}
    card = import_checkpoint(str(tmp_path / "bare"), tmp_path / "out", UserSays(process=process))
    assert {key: getattr(card.process, key) for key in process} == process


def test_a_sampler_that_has_no_variance_needs_to_be_told_it(tmp_path: Path) -> None:
    folder = pipeline(tmp_path / "p")
    diffusers.DDIMScheduler().save_pretrained(folder / "scheduler")
    with pytest.raises(UserError, match=r"give --variance\."):
        import_checkpoint(str(folder), tmp_path / "out", UserSays())


@pytest.mark.parametrize(
    ("name", "asked", "kind"),
    [
        ("ddpm", {}, "unknown"),
        ("ddpm-ema-church-256", {}, "ema"),
        ("unet_ema", {}, "ema"),
        ("cinema", {}, "unknown"),
        ("ddpm", {"weights": "ema"}, "ema"),
        ("ddpm", {"weights": "raw", "raw": True}, "raw"),
    ],
)
def test_a_moving_average_is_known_by_name_or_said(tmp_path: Path, name: str, asked: dict, kind: str) -> None:
    card = import_checkpoint(str(pipeline(tmp_path / name)), tmp_path / "out", UserSays(**asked))
    assert (card.weights, card.name, card.source["path"]) == (kind, name, name)


def test_a_moving_average_saved_by_diffusers_says_so_and_its_step(tmp_path: Path) -> None:
    model = unet()
    average = diffusers.training_utils.EMAModel(model.parameters(), model_cls=type(model), model_config=model.config)
    for _ in range(3):
        average.step(model.parameters())
    average.save_pretrained(tmp_path / "average")
    process = {"schedule": "linear", "T": 1000, "parameterization": "eps", "variance": "fixed-beta"}
    card = import_checkpoint(str(tmp_path / "average"), tmp_path / "out", UserSays(process=process))
    assert (card.weights, card.step) == ("ema", 3)
    with pytest.raises(UserError, match="--raw asks for raw weights"):
        import_checkpoint(str(tmp_path / "average"), tmp_path / "raw", UserSays(process=process, raw=True))


def test_a_ddim_pipeline_a_component_that_is_none_and_known_notes_are_taken(tmp_path: Path) -> None:
    folder = pipeline(tmp_path / "p")
    edit(folder / "model_index.json", _class_name="DDIMPipeline", vae=[None, None], _name_or_path="x")
    assert import_checkpoint(str(folder), tmp_path / "out", UserSays()).remarks == ()


FULL = "diffusion_pytorch_model.safetensors"
FP16 = "diffusion_pytorch_model.fp16.safetensors"
BF16 = "diffusion_pytorch_model.bf16.safetensors"


@pytest.mark.parametrize(
    ("files", "remarks"),
    [
        ([FULL], []),
        ([FP16], [f"weights of {FP16}", "stored as float16"]),
        ([FULL, FP16], [f"weights of {FULL}; {FP16} passed over"]),
        ([FULL, "diffusion_pytorch_model.bin"], [f"weights of {FULL}; diffusion_pytorch_model.bin passed over"]),
        (
            [FP16, "diffusion_pytorch_model.fp16.bin"],
            [f"weights of {FP16}; .*fp16.bin passed over", "stored as float16"],
        ),
    ],
)
def test_half_precision_is_taken_where_there_is_no_other_and_said(tmp_path: Path, files: list, remarks: list) -> None:
    folder = pipeline(tmp_path / "p")
    full = folder / "unet" / FULL
    state = load_file(full)
    full.unlink()
    for name in files:
        held = {key: each.half() for key, each in state.items()} if "fp16" in name else state
        torch.save(held, folder / "unet" / name) if name.endswith("bin") else save_file(held, folder / "unet" / name)
    card = import_checkpoint(str(folder), tmp_path / "out", UserSays())
    assert len(card.remarks) == len(remarks)
    assert all(re.search(expected, said) for expected, said in zip(remarks, card.remarks, strict=True))
    held = load_model(tmp_path / "out").network.state_dict()["first.weight"]
    whole = state["conv_in.weight"]
    torch.testing.assert_close(held, whole if FULL in files else whole.half().float(), rtol=0, atol=0)


def test_of_two_half_precisions_neither_is_guessed(tmp_path: Path) -> None:
    unet_folder = pipeline(tmp_path / "p") / "unet"
    shutil.copy(unet_folder / FULL, unet_folder / FP16)
    (unet_folder / FULL).rename(unet_folder / BF16)
    with pytest.raises(UserError, match=rf"several half precisions, {BF16} and {FP16}, and none in full"):
        import_checkpoint(str(tmp_path / "p"), tmp_path / "out", UserSays())


def test_a_hub_that_cannot_be_reached_is_said_with_the_remedy(tmp_path: Path, monkeypatch) -> None:
    download = huggingface_hub.snapshot_download

    def nowhere(*arguments, **options):  # a real attempt, at a port where nothing listens
        return download(*arguments, **options, endpoint="http://127.0.0.1:9", cache_dir=tmp_path / "cache")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", nowhere)
    with pytest.raises(UserError, match=r"'owner/name' is no file or folder here, and the .* hub does not .*by hand"):
        import_checkpoint("owner/name", tmp_path / "out", UserSays())


def test_a_hub_id_is_fetched_without_pickles(tmp_path: Path, monkeypatch) -> None:
    folder = pipeline(tmp_path / "fetched")

    def fetched(hub_id: str, allow_patterns: list[str]) -> str:
        assert (hub_id, allow_patterns) == ("owner/ddpm-ema-cats", ["*.json", "*.safetensors"])
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetched)
    card = import_checkpoint("owner/ddpm-ema-cats", tmp_path / "out", UserSays())
    assert (card.name, card.weights, card.source["path"]) == ("ddpm-ema-cats", "ema", "owner/ddpm-ema-cats")


def test_without_the_hubs_package_the_remedy_is_to_install_it(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(UserError, match="pip install huggingface_hub"):
        import_checkpoint("owner/name", tmp_path / "out", UserSays())
