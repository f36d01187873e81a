"""OpenAI's flags and file names: what they decide, what they do not, and what they contradict."""

import pytest
import torch
from openai_layout import layout
from test_interop_openai import FLAGS, SMALL, read

from ddpm_bench.errors import UserError
from ddpm_bench.models.interop import openai
from ddpm_bench.models.interop.openai_flags import PUBLISHED


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("", {"schedule": "linear", "T": 1000, "beta_1": 1e-4, "beta_T": 0.02, "parameterization": "eps"}),
        ("--diffusion_steps 500 --rescale_timesteps False", {"T": 500, "beta_1": 2e-4, "beta_T": 0.04}),
        ("--noise_schedule cosine", {"schedule": "cosine", "variance": "fixed-beta", "rescale_timesteps": False}),
        ("--sigma_small True --predict_xstart=true", {"variance": "fixed-beta-tilde", "parameterization": "x0"}),
        ("--diffusion_steps 4000 --rescale_timesteps True", {"T": 4000, "rescale_timesteps": True}),
        ("--diffusion_steps 4000 --use_new_attention_order False", {"rescale_timesteps": False}),  # guided-diffusion's
        ("--dropout 0.3 --lr 1e-4 --use_fp16 True --timestep_respacing 250", {"T": 1000}),
    ],
)
def test_flags_decide_the_process(flags: str, expected: dict) -> None:
    process = read(layout(**SMALL), f"{FLAGS} {flags}").process.model_dump()
    assert {key: process[key] for key in expected} == pytest.approx(expected)


def test_flags_that_are_not_used_are_said_with_what_to_give_instead() -> None:
    sampling = "--timestep_respacing ddim25 --use_ddim True --clip_denoised False --num_samples 9 --batch_size 4"
    remarks = read(layout(**SMALL), f"{FLAGS} {sampling} --model_path a.pt --use_kl True --dropout 0.1").remarks
    assert len(remarks) == 7
    for name, instead in (
        ("--timestep_respacing ddim25 ", "--steps 25 --spacing leading"), ("--use_ddim True", "ancestral"), ("--num_samples 9", "--count"),
        ("--clip_denoised False", "--clip or --no-clip"), ("--batch_size 4", "--batch"), ("--model_path a.pt", "`import`"),
        ("--use_kl, --dropout", "training alone"),
    ):  # fmt: skip
        assert any(name in remark and instead in remark for remark in remarks)
    assert read(layout(**SMALL), FLAGS).remarks == ()
    [training] = read(layout(**SMALL), f"{FLAGS} --lr 1e-4 --batch_size 128").remarks
    assert training.startswith("--lr, --batch_size of --flags tell of training alone")


@pytest.mark.parametrize(
    ("respaced", "instead"),
    [("250", "give --steps 250"), ("ddim50", "--steps 50 --spacing leading"), ("10,10,10", "cannot be had")],
)
def test_what_visits_the_steps_of_their_respacing_is_said(respaced: str, instead: str) -> None:
    [remark] = read(layout(**SMALL), f"{FLAGS} --timestep_respacing {respaced}").remarks
    assert remark.startswith(f"--timestep_respacing {respaced} of --flags is not used: ") and instead in remark


def test_a_size_that_the_flags_do_not_have_is_a_contradiction() -> None:
    assert read(layout(**SMALL), FLAGS, size=16).shape == (3, 16, 16)
    with pytest.raises(UserError, match="--size 32 contradicts --flags, which says 16"):
        read(layout(**SMALL), FLAGS, size=32)


@pytest.mark.parametrize(
    ("name", "shape", "parameters", "process"),
    [
        (
            "cifar10_uncond_50M_500K.pt", {"base": 128, "multipliers": (1, 2, 2, 2), "blocks": 3, "attention": (1, 2)},
            52_546_438, {"schedule": "cosine", "T": 4000, "rescale_timesteps": True},
        ),
        (
            "imagenet64_uncond_vlb_100M_1500K.pt",
            {"base": 128, "multipliers": (1, 2, 3, 4), "blocks": 3, "attention": (2, 3)},
            121_063_942, {"schedule": "cosine", "T": 4000, "rescale_timesteps": True},
        ),
        (
            "lsun_uncond_100M_2400K_bs64.pt",
            {"base": 128, "multipliers": (1, 1, 2, 2, 4, 4), "blocks": 2, "attention": (4,), "scale_shift": False},
            113_676_678, {"schedule": "linear", "T": 1000, "rescale_timesteps": False},
        ),
        (
            "256x256_diffusion_uncond.pt",
            {"base": 256, "multipliers": (1, 1, 2, 2, 4, 4), "blocks": 2, "attention": (3, 4, 5), "updown": True},
            552_814_086, {"schedule": "linear", "T": 1000, "rescale_timesteps": False},
        ),
        (
            "64x64_diffusion.pt",
            {"base": 192, "multipliers": (1, 2, 3, 4), "blocks": 3, "attention": (1, 2, 3), "updown": True, "classes": 1000},
            295_904_454, {"schedule": "cosine", "T": 1000, "rescale_timesteps": False},
        ),
        (
            "128x128_diffusion.pt",
            {"base": 256, "multipliers": (1, 1, 2, 3, 4), "blocks": 2, "attention": (2, 3, 4), "updown": True, "classes": 1000},
            421_529_606, {"schedule": "linear", "T": 1000, "rescale_timesteps": False},
        ),
        (
            "256x256_diffusion.pt",
            {"base": 256, "multipliers": (1, 1, 2, 2, 4, 4), "blocks": 2, "attention": (3, 4, 5), "updown": True, "classes": 1000},
            553_838_086, {"schedule": "linear", "T": 1000, "rescale_timesteps": False},
        ),
        (
            "imagenet64_cond_270M_250K.pt",
            {"base": 192, "multipliers": (1, 2, 3, 4), "blocks": 3, "attention": (2, 3), "classes": 1000},
            273_049_350, {"schedule": "cosine", "T": 4000, "rescale_timesteps": False},
        ),
    ],
)  # fmt: skip
def test_published_files_are_known_by_name_and_their_networks_are_expressed(name, shape, parameters, process) -> None:
    with torch.device("meta"):
        state = layout(**shape, outputs=6)
    found = read(state, None, name)
    assert sum(tensor.numel() for tensor in found.state.values()) == parameters
    assert found.process.variance == "learned-range" and found.weights == "unknown"
    assert {key: getattr(found.process, key) for key in process} == process


def test_all_published_names_have_flags_that_can_be_read() -> None:
    assert len(PUBLISHED) == 15
    for name in PUBLISHED:
        openai.read_flags(None, name, name)


@pytest.mark.parametrize(
    ("changed", "flags", "said"),
    [
        ({}, f"{FLAGS} --num_channels 64", "--num_channels 64 contradicts the tensors.* say 32"),
        ({}, f"{FLAGS} --num_res_blocks 3", "--num_res_blocks 3 contradicts .* say 1"),
        ({}, f"{FLAGS} --learn_sigma True", "--learn_sigma True contradicts .* say False"),
        ({}, f"{FLAGS} --use_scale_shift_norm False", "--use_scale_shift_norm False contradicts .* say True"),
        ({}, f"{FLAGS} --resblock_updown True", "--resblock_updown True contradicts .* say False"),
        ({}, f"{FLAGS} --attention_resolutions 16", r"attention at sides \[16\], but .* at \[8\]"),
        ({}, f"{FLAGS} --attention_resolutions high", "must be sides"),
        ({}, "--image_size 16 --channel_mult 1,4", "--channel_mult 1,4 contradicts .* say 1,2"),
        ({}, "--image_size 32", "--image_size 32 means --channel_mult 1,2,2,2, but .* say 1,2"),
        ({}, f"{FLAGS} --num_heads 5", "64 channels of a level cannot be shared out .* heads = 5"),
        ({}, f"{FLAGS} --num_heads_upsample 2", "one number of heads"),
        ({}, f"{FLAGS} --class_cond True", "--class_cond True contradicts .* say False"),
        ({"classes": 3}, f"{FLAGS} --class_cond False", "--class_cond False contradicts .* say True"),
        ({}, f"{FLAGS} --num_head 4", "no flag '--num_head'; did you mean 'num_heads'"),
        ({}, f"{FLAGS} --num_heads", "pairs of --name value"),
        ({}, f"{FLAGS} --num_heads many", "num_heads = 'many'"),
        ({}, f"{FLAGS} --diffusion_steps 4000", "needs --rescale_timesteps"),
        ({}, f"{FLAGS} --diffusion_steps 10 --rescale_timesteps True", "beta_T = 2"),
        ({}, f"{FLAGS} --noise_schedule sqrt", "noise_schedule = 'sqrt'"),
        ({}, None, "does not say how it was trained.*--flags"),
        ({"channels": 6}, FLAGS, "6 channels: it is an upsampler"),
        ({"outputs": 5}, FLAGS, "gives 5 channels for images of 3"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(changed: dict, flags: str | None, said: str) -> None:
    with pytest.raises(UserError, match=said):
        read(layout(**SMALL | changed), flags)


def test_process_options_may_repeat_the_flags_but_not_contradict_them() -> None:
    assert read(layout(**SMALL), FLAGS, process={"T": 1000}).process.T == 1000
    with pytest.raises(UserError, match="--T 500 contradicts --flags, which says 1000"):
        read(layout(**SMALL), FLAGS, process={"T": 500})


@pytest.mark.parametrize(
    ("name", "asked", "kind", "step"),
    [
        ("ema_0.9999_200000.pt", {}, "ema", 200_000),
        ("model200000.pt", {"raw": True}, "raw", 200_000),
        ("weights.pt", {}, "unknown", None),
        ("weights.pt", {"weights": "ema"}, "ema", None),
        ("weights.pt", {"weights": "raw", "raw": True}, "raw", None),
    ],
)
def test_the_name_says_whether_weights_are_a_moving_average(name: str, asked: dict, kind: str, step) -> None:
    found = read(layout(**SMALL), FLAGS, name, **asked)
    assert (found.weights, found.step) == (kind, step)


@pytest.mark.parametrize(
    ("name", "asked", "said"),
    [
        ("model200000.pt", {}, "raw, not EMA; give --raw"),
        ("weights.pt", {"weights": "raw"}, "give --raw"),
        ("weights.pt", {"raw": True}, "not known whether EMA; add --weights raw"),
        ("ema_0.9999_200000.pt", {"raw": True}, "leave --raw out"),
        ("ema_0.9999_200000.pt", {"weights": "raw", "raw": True}, "--weights raw contradicts the name"),
    ],
)
def test_raw_weights_are_used_only_when_asked_for(name: str, asked: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        read(layout(**SMALL), FLAGS, name, **asked)
