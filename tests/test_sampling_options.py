"""Samplers and their options through settings, checkpoints, commands and what is recorded."""

import json
import re
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from records import make_record
from test_chains import picture
from tiny_models import tiny_checkpoint, tiny_data, tiny_preset

from ddpm_bench.cli.sampling_options import KINDS, UNASKED, SamplingOptions
from ddpm_bench.config.networks import UNetSettings
from ddpm_bench.config.sampling import OF_SAMPLERS, SamplingSettings
from ddpm_bench.config.shipped import load_grid
from ddpm_bench.diffusion.samplers import SAMPLERS
from ddpm_bench.errors import UserError
from ddpm_bench.measurement.samples import samples_depend_on
from ddpm_bench.models.build_sampling import build_sampler
from ddpm_bench.models.model_card import ModelCard
from ddpm_bench.records.conditions import model_conditions
from ddpm_bench.records.record import Record, read_records
from ddpm_bench.records.row import read_rows
from ddpm_bench.runtime.runtime import Runtime

FUNCTION = {"weights_sha256": "0", "process": {"T": 20}, "network": UNetSettings().named, "shape": [1, 16, 16]}


def made(call, ckpt: Path, out: Path, *more: object) -> tuple[dict, str]:
    done = call("sample", "--ckpt", ckpt, "--out", out, "--device", "cpu", "--json", *more)
    assert done.code == 0, done.err
    return json.loads(done.out), " ".join(done.err.split())


def test_the_help_names_every_sampler() -> None:
    *first, last = SAMPLERS
    assert f"{', '.join(first)} or {last}" in KINDS["sampler"].__metadata__[0].help


def test_every_option_of_a_sampler_is_a_setting_and_every_such_setting_an_option() -> None:
    options = {field.name for kind in SAMPLERS.values() for field in fields(kind)}
    assert options == set(OF_SAMPLERS) <= set(SamplingSettings.model_fields)


def test_every_setting_of_sampling_is_an_option_of_the_commands_and_those_given_are_named_as_they_are_written() -> None:
    assert {*UNASKED.asked, "samples", "steps"} == set(SamplingSettings.model_fields) and UNASKED.given == {}
    asked = SamplingOptions(final_denoising=False, labels="3", gradient_at="mean", clip=False)
    assert set(asked.given) == {
        "--final-denoising/--no-final-denoising",
        "--labels",
        "--gradient-at",
        "--clip/--no-clip",
    }
    assert {name: value for name, value in asked.asked.items() if value is not None} == {
        "final_denoising": False, "labels": 3, "gradient_at": "mean", "clip_x0": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"eta": 0.5}, "'ancestral' has no eta, which is 0.5 here. Of these it is an option: ddim"),
        ({"sampler": "sigma-hat", "eta": 0.0}, "'sigma-hat' has no eta"),
        ({"sampler": "ddim", "snr": 0.1}, "of these it is an option: ancestral-sde, reverse-diffusion, probability-flow, langevin"),
        ({"sampler": "reverse-diffusion", "snr": 0.1}, "corrector_steps is 0"),
        ({"sampler": "dim"}, "no sampler 'dim'; did you mean 'ddim'"),
    ],
)  # fmt: skip
def test_an_option_that_a_sampler_has_not_is_refused_with_those_that_have_it(settings: dict, said: str) -> None:
    with pytest.raises(UserError, match=re.compile(re.escape(said), re.IGNORECASE)):
        build_sampler(SamplingSettings(**settings))


def test_kept_samples_of_other_options_have_another_key_and_the_defaults_are_named() -> None:
    def key(runtime: Runtime | None = None, **settings) -> str:
        return json.dumps(samples_depend_on(FUNCTION, SamplingSettings(**settings), 0, runtime or Runtime()))

    keys = [key(sampler=name) for name in SAMPLERS] + [key(sampler="ddim", eta=0.5)]
    keys += [key(sampler="langevin", corrector_norm="batch"), key(sampler="langevin", snr=0.2)]
    keys += [key(Runtime(batch=7), sampler="langevin", corrector_norm="batch")]
    assert len(set(keys)) == len(keys)
    assert key(sampler="ddim") == key(sampler="ddim", eta=0.0)
    assert key(sampler="langevin") == key(Runtime(batch=7), sampler="langevin", snr=0.16, corrector_norm="image")


def test_older_cards_and_records_are_read_as_one_call_a_step(tmp_path: Path) -> None:
    card = json.loads((tiny_checkpoint(tmp_path / "tiny") / "model.json").read_text())
    for name in OF_SAMPLERS:
        del card["sampling"][name]
    assert ModelCard.model_validate(card).sampling.options == {}
    record = make_record(load_grid("table2"), "eps-mse-fixed")
    older = record.as_json()
    del older["network_calls"], older["sampling_remarks"]
    assert Record.model_validate(older) == record and record.network_calls == record.sampling_steps


def test_ddim_is_drawn_without_noise_unclipped_and_says_its_calls(call, tmp_path: Path) -> None:
    ckpt = tiny_checkpoint(tmp_path / "tiny", T=20, variance="learned-range")
    about, said = made(call, ckpt, tmp_path / "a.npz", "--samples", 4, "--sampler", "ddim", "--steps", 7)
    assert (about["sampler"], about["eta"], about["clip_x0"], about["network_calls"]) == ("ddim", 0.0, False, 7)
    assert "the one that the network learned is not used" in said and "not used" in about["remarks"][0]
    about, said = made(
        call, ckpt, tmp_path / "b.npz", "--samples", 4, "--sampler", "reverse-diffusion", "--corrector-steps", 2,
        "--corrector-norm", "batch", "--clip", "--steps", 7, "--spacing", "ddim-uniform",
    )  # fmt: skip
    assert (about["sampling_steps"], about["network_calls"], about["snr"]) == (10, 30, 0.16)
    assert "eps derived from it again" in said and "depends on those that it is sampled with" in said
    _, said = made(call, ckpt, tmp_path / "c.npz", "--samples", 4)
    assert said == f"Made '{tmp_path / 'c.npz'}'"


def test_a_row_says_its_sampler_and_another_is_another_row(call, tmp_path: Path) -> None:
    ckpt, data = tiny_checkpoint(tmp_path / "tiny"), tiny_data(tmp_path / "data.npz")
    command = (
        "evaluate", "--ckpt", ckpt, "--data", data, "--results", tmp_path / "rows", "--count", 16, "--bound-images", 0,
        "--device", "cpu", "--cache", tmp_path / "cache",
    )  # fmt: skip
    done = call(*command, "--sampler", "probability-flow", "--corrector-steps", 1)
    assert done.code == 0, done.err
    (row,) = read_rows(tmp_path / "rows")
    assert (row.setup.sampler, row.setup.network_calls, row.setup.sampler_options["snr"]) == (
        "probability-flow",
        12,
        0.16,
    )
    table = (tmp_path / "rows" / "table.md").read_text().replace("\\", "")
    assert (
        "6 of T = 6 (probability-flow corrector_steps = 1, snr = 0.16, corrector_norm = image; 12 network calls)"
        in table
    )
    header, line = (tmp_path / "rows" / "table.csv").read_text().splitlines()
    assert dict(zip(header.split(","), line.split(","), strict=True))["network_calls"] == "12"
    held = tmp_path / "rows" / f"{row.name}.json"
    about = json.loads(held.read_text())
    about["setup"]["sampling_remarks"] = ["said otherwise by an older version"]
    held.write_text(json.dumps(about))
    assert "measured already" in call(*command, "--sampler", "probability-flow", "--corrector-steps", 1).err
    done = call(*command)
    assert done.code == 2 and "sampler: was probability-flow, now ancestral" in done.err


def test_a_cell_is_sampled_so_and_its_record_and_checkpoint_say_it(call, tmp_path: Path) -> None:
    values = ("sampling.sampler=ddim", "sampling.eta=0.5", "sampling.steps=5", "sampling.spacing=ddim-uniform")
    preset = tiny_preset(tmp_path, tiny_data(tmp_path / "data.npz"))
    done = call(
        "ablate", "--preset", preset, "--cells", "eps-L-learned", "--results", tmp_path / "r", "--no-report",
        "--workers", 1, "--device", "cpu", *(word for value in values for word in ("--set", value)),
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "visits 6 of 6 steps" in " ".join(done.err.split())
    (record,) = read_records(tmp_path / "r")
    assert (record.sampling_steps, record.network_calls, record.settings.sampling.eta) == (6, 6, 0.5)
    assert any("learned is not used" in remark for remark in record.sampling_remarks)
    conditions = model_conditions(record, "is_mean")
    assert (conditions["sampling.sampler"], conditions["sampling.eta"]) == ("ddim", 0.5)
    about, _ = made(call, tmp_path / "r" / "work" / "eps-L-learned-seed0", tmp_path / "s.npz", "--samples", 4)
    assert (about["sampler"], about["eta"], about["sampling_steps"]) == ("ddim", 0.5, 6)


def test_a_record_counts_the_call_of_a_last_denoising(call, tmp_path: Path) -> None:
    values = ("sampler=annealed-langevin", "level_steps=2", "step_size=1e-3", "final_denoising=true")
    preset = tiny_preset(tmp_path, tiny_data(tmp_path / "data.npz"))
    done = call(
        "ablate", "--preset", preset, "--cells", "eps-mse-fixed", "--results", tmp_path / "r", "--no-report",
        "--workers", 1, "--device", "cpu", "--set", "diffusion.schedule=cosine", "--set", "diffusion.beta_1=0.01",
        *(word for value in values for word in ("--set", f"sampling.{value}")),
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "diffusion.beta_1 = 0.01 is not used by the schedule 'cosine'." in " ".join(done.err.split())
    (record,) = read_records(tmp_path / "r")
    assert (record.sampling_steps, record.network_calls) == (6, 13)


def test_encode_gives_an_error_for_each_number_of_steps_and_a_picture(call, tmp_path: Path) -> None:
    ckpt, data = tiny_checkpoint(tmp_path / "tiny", T=20), tiny_data(tmp_path / "data.npz")
    options = ("--encode", "--data", data, "--samples", 9, "--steps", 2, "--steps", 10)
    about, _ = made(call, ckpt, tmp_path / "again.png", *options)
    images, inside = picture(tmp_path / "again.png", 8, 3)
    with np.load(tmp_path / "data.npz") as held:
        test = held["test"][:9, 0]
    assert np.array_equal(images[:, 0], test[:8]) and inside["errors"] == about["errors"]
    few, more = about["errors"]
    assert (few["steps"], few["network_calls"], few["published"], more["published"]) == (2, 4, None, "0.014")
    assert more["mse"] == pytest.approx((((test[:8] - images[:, 2].astype(float)) / 255) ** 2).mean(), rel=0.5)
    assert any("data: there cifar10" in said for said in about["otherwise"])
    done = call("sample", "--ckpt", ckpt, "--out", tmp_path / "b.png", "--device", "cpu", *options)
    assert "0.014" in done.out and "Otherwise than there" in done.out


def test_slerp_goes_from_a_sample_or_an_image_to_another(call, tmp_path: Path) -> None:
    ckpt, data = tiny_checkpoint(tmp_path / "tiny", T=20), tiny_data(tmp_path / "data.npz")
    made(call, ckpt, tmp_path / "s.npz", "--samples", 4, "--sampler", "ddim")
    about, _ = made(call, ckpt, tmp_path / "a.png", "--slerp", 1, 3, "--sampler", "ddim")
    images, _ = picture(tmp_path / "a.png", 1, 11)
    samples = np.load(tmp_path / "s.npz")["images"][..., 0].astype(int)
    assert about["between"] == [1, 3] and np.abs(images[0, [0, -1]] - samples[[1, 3]]).max() <= 1
    about, _ = made(call, ckpt, tmp_path / "b.png", "--slerp", 1, 3, "--encode", "--data", data)
    images, _ = picture(tmp_path / "b.png", 1, 13)
    with np.load(tmp_path / "data.npz") as held:
        assert np.array_equal(images[0, [0, -1]], held["test"][[1, 3], 0])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--eta", 0.5), "The sampler 'ancestral' has no eta"),
        (("--sampler", "ddim", "--eta", 1.5), "eta: should be less than or equal to 1, not 1.5"),
        (("--sampler", "ddim", "--steps", 7), "--steps 7 exceeds the 6 steps"),
        (("--sampler", "sigma"), "There is no sampler 'sigma'"),
        (("--sampler", "langevin", "--snr", 0), "snr"),
        (("--sampler", "langevin", "--snr", "nan"), "snr"),
        (("--sampler", "langevin", "--corrector-steps", 0), "must be 1 or more"),
        (("--steps", 2, "--steps", 3), "--steps is given several times for the table of --encode alone"),
        (("--slerp", 0, 1), "the sampler 'ancestral' draws more noise"),
        (("--slerp", 0, 1, "--sampler", "ddim", "--eta", 0.1), "the sampler 'ddim' draws more noise"),
        (("--slerp", "a.png", 1, "--sampler", "ddim"), "give --encode for images"),
        (("--slerp", 0, 1, "--samples", 3), "--samples does not go with --slerp"),
        (("--slerp", 0, 1, "--interpolate", 2, 3), "--slerp does not go with --interpolate"),
        (("--encode", "--seed", 1), "--seed does not go with --encode"),
        (("--encode", "--data", "DATA", "--sampler", "sigma-hat"), "with eta = 0 back"),
        (("--encode", "--data", "DATA", "--eta", 0.2), "with eta = 0 back"),
        (("--encode", "--data", "DATA", "--samples", 25), "more than the 24 test images"),
        (("--encode", "--interpolate", 1, 2), "--encode does not go with --interpolate"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_written(call, tmp_path: Path, options: tuple, said: str) -> None:
    ckpt, data = tiny_checkpoint(tmp_path / "tiny"), tiny_data(tmp_path / "data.npz")
    words = [data if word == "DATA" else word for word in options]
    done = call("sample", "--ckpt", ckpt, "--out", tmp_path / "out.png", "--device", "cpu", *words)
    assert done.code == 2 and said in " ".join(done.err.split()).replace("│ ", ""), done.err
    assert "Traceback" not in done.err and not (tmp_path / "out.png").exists()


def test_a_network_of_the_mean_is_refused_by_the_command_and_by_a_grid(call, tmp_path: Path) -> None:
    ckpt = tiny_checkpoint(tmp_path / "tiny", parameterization="mu")
    done = call("sample", "--ckpt", ckpt, "--out", tmp_path / "s.npz", "--sampler", "ddim", "--device", "cpu")
    assert done.code == 2 and "takes x_0 and eps from the network" in " ".join(done.err.split())
    done = call(
        "ablate", "--preset", tiny_preset(tmp_path), "--cells", "mu-L-fixed", "--results", tmp_path / "r", "--set",
        "sampling.sampler=ddim",
    )  # fmt: skip
    assert done.code == 2 and "takes x_0 and eps" in " ".join(done.err.split()) and not (tmp_path / "r").exists()
