"""What scheduler_config.json says of sampling is followed, refused, or said and recorded: against diffusers' own loop."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import tiny_checkpoint, tiny_data
from torch import Tensor

from ddpm_bench.diffusion.noise import BlockNoise
from ddpm_bench.diffusion.samplers import sample
from ddpm_bench.errors import UserError
from ddpm_bench.models.interop.diffusers_scheduler import Scheduler, read_scheduler
from ddpm_bench.models.model import Model, load_model
from ddpm_bench.records.row import read_rows

T, COUNT, SEED = 20, 8, 3
PROCESS = {"num_train_timesteps": T, "beta_start": 0.001, "beta_end": 0.3, "variance_type": "fixed_large"}


def written(folder: Path, **content: Any) -> Scheduler:
    (folder / "scheduler_config.json").write_text(json.dumps(content))
    return read_scheduler(folder / "scheduler_config.json")


def saturated(images: np.ndarray | Tensor) -> float:
    """The share of pixels that are black or white."""
    pixels = np.asarray(images)
    return float(((pixels == 0) | (pixels == 255)).mean())


@pytest.mark.parametrize(
    ("content", "clip_x0", "spacing"),
    [
        ({}, True, "leading"),  # diffusers' defaults
        ({"clip_sample": False}, False, "leading"),
        ({"clip_sample": False, "clip_sample_range": 2.0}, False, "leading"),  # a range of what is not clipped
        ({"timestep_spacing": "linspace"}, True, "linspace"),
        ({"timestep_spacing": "trailing", "steps_offset": 1}, True, "trailing"),  # the offset is of "leading" alone
        ({"thresholding": False, "dynamic_thresholding_ratio": 0.9, "sample_max_value": 5.0}, True, "leading"),
        ({"_class_name": "DDIMScheduler", "clip_sample": False}, False, "leading"),
        ({"tensor_format": "pt", "timestep_values": None, "_diffusers_version": "0.1.1"}, True, "leading"),
    ],
)
def test_clipping_and_spacing_are_the_files(tmp_path: Path, content: dict, clip_x0: bool, spacing: str) -> None:
    sampling = written(tmp_path, **content).sampling
    assert (sampling.clip_x0, sampling.spacing, sampling.steps, sampling.sampler) == (
        clip_x0,
        spacing,
        None,
        "ancestral",
    )


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"thresholding": True}, r"thresholding = True.*clipped to \[-1, 1\] or not at all; set it to false"),
        ({"clip_sample_range": 2.0}, "clip_sample_range = 2.0.*set it to 1, or clip_sample to false"),
        ({"steps_offset": 1}, "steps_offset = 1.*set it to 0"),
        ({"timestep_spacing": "log"}, "timestep_spacing = 'log'"),
        ({"clip_sample": None}, "clip_sample = None"),
        (
            {"timestep_type": "discrete"},
            "timestep_type = 'discrete'.*a DDPMScheduler itself does not use can be taken out",
        ),
        ({"timestep_values": [1, 2]}, r"timestep_values = \[1, 2\]"),
    ],
)
def test_what_the_chain_does_not_do_is_refused_with_key_value_and_remedy(tmp_path: Path, content, said: str) -> None:
    with pytest.raises(UserError, match=said):
        written(tmp_path, **content)


def test_of_ddim_the_chain_and_its_keys_are_recorded_as_not_used(tmp_path: Path) -> None:
    found = written(tmp_path, _class_name="DDIMScheduler", set_alpha_to_one=True, num_train_timesteps=50)
    [remark] = found.remarks
    assert remark == (
        "not used of the DDIMScheduler: the chain without noise (eta = 0): samples are drawn by the ancestral chain, "
        "set_alpha_to_one = True"
    )
    assert "variance" not in found.process


def test_a_key_that_ddpm_does_not_use_is_recorded_too(tmp_path: Path) -> None:
    assert written(tmp_path, set_alpha_to_one=False).remarks == (
        "not used of the DDPMScheduler: set_alpha_to_one = False",
    )
    assert written(tmp_path).remarks == ()


def unclipped(folder: Path) -> Path:
    """A checkpoint whose card says that x_0 is not clipped, as `import` leaves it of clip_sample = false."""
    path = tiny_checkpoint(folder) / "model.json"
    card = json.loads(path.read_text())
    card["sampling"]["clip_x0"] = False
    path.write_text(json.dumps(card))
    return folder


def test_sample_evaluate_and_nll_follow_the_cards_clipping(call, tmp_path: Path) -> None:
    ckpt, data, cache = unclipped(tmp_path / "free"), tiny_data(tmp_path / "data.npz"), tmp_path / "cache"
    common = ("--ckpt", ckpt, "--device", "cpu", "--json")
    images, told = {}, {}
    for name, more in {"own": (), "free": ("--no-clip",), "clipped": ("--clip",)}.items():
        done = call("sample", *common, "--samples", 8, "--out", tmp_path / f"{name}.npz", *more)
        assert done.code == 0, done.err
        images[name] = next(iter(np.load(tmp_path / f"{name}.npz").values()))
        told[name] = json.loads(done.out)["clip_x0"]
    assert told == {"own": False, "free": False, "clipped": True}
    assert np.array_equal(images["own"], images["free"])
    assert saturated(images["own"]) > saturated(images["clipped"]) + 0.05
    bound = ("--data", data, "--evals", 5, "--cache", cache)
    totals = [
        json.loads(call("nll", *common, "--images", 4, *bound, *more).out)["bounds"][0] for more in ((), ("--clip",))
    ]
    assert [each["clip_x0"] for each in totals] == [False, True] and totals[0]["total"] != totals[1]["total"]
    rows = ("--results", tmp_path / "rows", "--count", 16, "--bound-images", 4)
    done = call("evaluate", *common, *bound, *rows)
    assert done.code == 0, done.err
    (row,) = read_rows(tmp_path / "rows")
    assert row.setup.clip_x0 is False and {each.clip_x0 for each in row.bounds} == {False}


# From here on beside diffusers itself.


def imported(call, folder: Path, **scheduler: Any) -> tuple[Model, Any, str]:
    """Our model, diffusers' pipeline of the same random weights, and what `import` said."""
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    unet = diffusers.UNet2DModel(
        sample_size=16, in_channels=1, out_channels=1, layers_per_block=1, block_out_channels=(8, 8), norm_num_groups=4,
        down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2,
    ).eval()  # fmt: skip
    pipeline = diffusers.DDPMPipeline(unet, diffusers.DDPMScheduler(**PROCESS | scheduler))
    pipeline.save_pretrained(folder / "theirs")
    done = call("import", folder / "theirs", "--out", folder / "ours")
    assert done.code == 0, done.err
    return load_model(folder / "ours"), pipeline, done.out


def test_what_is_not_used_of_ddim_stands_in_the_card_of_a_pipeline(call, tmp_path: Path) -> None:
    imported(call, tmp_path)
    pytest.importorskip("diffusers").DDIMScheduler(clip_sample=False).save_pretrained(tmp_path / "theirs" / "scheduler")
    called = call("import", tmp_path / "theirs", "--out", tmp_path / "told", "--variance", "fixed-beta")
    done = call("import", tmp_path / "theirs", "--out", tmp_path / "ddim", "--variance", "fixed-beta", "--json")
    assert called.code == done.code == 0, done.err
    card = json.loads(done.out)
    [remark] = [each for each in card["remarks"] if each.startswith("not used of the DDIMScheduler")]
    assert "the chain without noise (eta = 0)" in remark and remark in called.out
    assert (card["sampling"]["clip_x0"], card["sampling"]["sampler"]) == (False, "ancestral")


def test_the_network_of_a_pipeline_given_alone_keeps_its_scheduler(call, tmp_path: Path) -> None:
    imported(call, tmp_path, clip_sample=False, timestep_spacing="trailing")
    done = call("import", tmp_path / "theirs" / "unet", "--out", tmp_path / "alone", "--json")
    assert done.code == 0, done.err
    card = json.loads(done.out)
    assert (card["sampling"]["clip_x0"], card["sampling"]["spacing"], card["process"]["T"]) == (False, "trailing", T)


def in_float64(model: Model, scheduler: Any) -> None:
    """The two chains are compared beyond float32's rounding, which theirs has in its tables."""
    model.network.double()
    scheduler.alphas_cumprod, scheduler.one = model.diffusion.schedule.alpha_bar, torch.ones((), dtype=torch.float64)


def their_chain(pipeline: Any, steps: int, noise: Iterator[Tensor], monkeypatch) -> Tensor:
    """Their loop, as DDPMPipeline has it, from our noise; no noise after the last step, where ours has none."""
    scheduler, x = pipeline.scheduler, next(noise).double()
    scheduler.set_timesteps(steps)
    last = int(scheduler.timesteps[-1])
    for t in scheduler.timesteps:
        z = next(noise).double() * (t != last)
        monkeypatch.setattr("diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda *_, z=z, **__: z)
        with torch.no_grad():
            x = scheduler.step(pipeline.unet(x, t).sample, t, x).prev_sample
    return x


@pytest.mark.parametrize(("steps", "spacing"), [(T, "leading"), (7, "leading"), (7, "linspace"), (7, "trailing")])
@pytest.mark.parametrize(
    ("clip_sample", "variance_type"), [(True, "fixed_large"), (False, "fixed_large"), (True, "fixed_small")]
)
def test_the_chain_is_that_of_diffusers(
    call, tmp_path, monkeypatch, clip_sample, spacing, steps, variance_type
) -> None:
    told = {"clip_sample": clip_sample, "timestep_spacing": spacing, "variance_type": variance_type}
    model, pipeline, _ = imported(call, tmp_path, **told)
    in_float64(model, pipeline.scheduler)
    pipeline.unet.double()
    draws = BlockNoise(SEED, 0, COUNT, model.shape, torch.device("cpu"))
    noise = [draws.draw().double() for _ in range(steps + 1)]
    theirs = their_chain(pipeline, steps, iter(noise), monkeypatch)
    chain = model.chain(model.sampling.model_copy(update={"steps": steps}))
    left = iter(noise[1:])
    monkeypatch.setattr(BlockNoise, "draw", lambda _: next(left))
    *_, done = chain.denoise(noise[0], chain.T, draws)
    torch.testing.assert_close(done.x, theirs, rtol=1e-7, atol=1e-7)


def test_a_scheduler_that_does_not_clip_saturates_here_as_much_as_there(call, tmp_path: Path, monkeypatch) -> None:
    model, pipeline, said = imported(call, tmp_path, clip_sample=False)
    assert "x_0 not clipped, all steps; fewer (--steps) are spaced as 'leading'" in said
    draws = BlockNoise(SEED, 0, COUNT, model.shape, torch.device("cpu"))
    pipeline.unet.double()
    theirs = their_chain(pipeline, T, iter([draws.draw() for _ in range(T + 1)]), monkeypatch)
    theirs = ((theirs / 2 + 0.5).clamp(0, 1) * 255).round()
    ours, clipped = (
        next(sample(model.chain(model.sampling.model_copy(update=change)), count=COUNT, seed=SEED))[1]
        for change in ({}, {"clip_x0": True})
    )
    assert (ours - theirs).abs().max() <= 1  # their network ran in float64
    assert saturated(ours) == pytest.approx(saturated(theirs), abs=0.005)
    assert saturated(ours) > saturated(clipped) + 0.2
