"""Which steps a strided chain visits: literal numbers, OpenAI's rule, and diffusers' own schedulers where it is installed."""

import json
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from records import make_record
from tiny_models import tiny_checkpoint, tiny_data, tiny_preset

from ddpm_bench.cli.options import Spacing
from ddpm_bench.config.networks import UNetSettings
from ddpm_bench.config.sampling import SHORT_OF_T, SamplingSettings
from ddpm_bench.config.shipped import load_grid
from ddpm_bench.diffusion.spacing import SPACINGS, evenly_spaced, kept_steps, visited
from ddpm_bench.errors import UserError
from ddpm_bench.measurement.samples import samples_depend_on
from ddpm_bench.models.build_sampling import build_spacing
from ddpm_bench.records.conditions import model_conditions
from ddpm_bench.records.row import read_rows
from ddpm_bench.runtime.runtime import Runtime


@given(st.data())
@settings(max_examples=50, deadline=None)
def test_evenly_spaced_steps_are_even_and_reach_both_ends(data: st.DataObject) -> None:
    T = data.draw(st.integers(2, 2000))
    steps = data.draw(st.integers(2, T))
    kept = evenly_spaced(T, steps)
    gaps = {b - a for a, b in pairwise(kept)}
    assert len(kept) == steps
    assert (kept[0], kept[-1]) == (1, T)
    assert min(gaps) >= 1
    assert max(gaps) - min(gaps) <= 1


def test_one_sampling_step_starts_from_pure_noise() -> None:
    assert evenly_spaced(1000, 1) == [1000]


@pytest.mark.parametrize("steps", [0, 21])
def test_impossible_numbers_of_steps_are_refused(steps: int) -> None:
    with pytest.raises(UserError, match="choose 1 to 20"):
        kept_steps(20, steps)


@pytest.mark.parametrize(
    ("spacing", "T", "steps", "expected"),
    [
        ("even", 10, 4, [1, 4, 7, 10]),
        ("openai", 10, 4, [1, 4, 7, 10]),
        ("leading", 10, 4, [1, 3, 5, 7]),
        ("linspace", 10, 4, [1, 4, 7, 10]),
        ("trailing", 10, 4, [2, 5, 8, 10]),
        ("even", 10, 7, [1, 3, 4, 6, 7, 9, 10]),
        ("openai", 10, 7, [1, 3, 4, 5, 7, 9, 10]),  # 1.5, 4.5 and 7.5, counted from 0, go to the even step
        ("linspace", 10, 7, [1, 3, 4, 5, 7, 9, 10]),
        ("leading", 10, 7, [1, 2, 3, 4, 5, 6, 7]),
        ("trailing", 10, 7, [1, 3, 4, 6, 7, 9, 10]),
        ("even", 1000, 1, [1000]),
        ("openai", 1000, 1, [1]),
        ("leading", 1000, 1, [1]),
        ("linspace", 1000, 1, [1]),
        ("trailing", 1000, 1, [1000]),
    ],
)
def test_literal_steps(spacing: str, T: int, steps: int, expected: list[int]) -> None:
    assert kept_steps(T, steps, SPACINGS[spacing]) == expected


def test_25_of_1000_visits_166_and_832_by_openai_where_even_spacing_visits_167_and_833() -> None:
    ours, theirs = (kept_steps(1000, 25, SPACINGS[name]) for name in ("even", "openai"))
    differing = [(a - 1, b - 1) for a, b in zip(ours, theirs, strict=True) if a != b]
    assert differing == [(167, 166), (833, 832)]


@pytest.mark.parametrize(("T", "usual"), [(1000, [25]), (4000, [25])])
def test_of_the_usual_numbers_of_steps_25_alone_differs_between_openai_and_even(T: int, usual: list[int]) -> None:
    steps = (10, 20, 25, 50, 100, 200, 250, 400, 500, 1000)
    assert [n for n in steps if kept_steps(T, n) != kept_steps(T, n, SPACINGS["openai"])] == usual


EXACT = [name for name in SPACINGS if name not in ("ddim-uniform", "ldm", "ddim-quad", "tau-quadratic")]
"""The spacings that visit as many steps as were asked for."""


@pytest.mark.parametrize("spacing", EXACT)
@given(st.data())
@settings(max_examples=50, deadline=None)
def test_every_spacing_keeps_so_many_increasing_steps_and_all_of_the_whole_chain(spacing, data: st.DataObject) -> None:
    T = data.draw(st.integers(2, 2000))
    steps = data.draw(st.integers(1, T))
    assert kept_steps(T, T, SPACINGS[spacing]) == list(range(1, T + 1))
    try:
        kept = kept_steps(T, steps, SPACINGS[spacing])
    except UserError:
        assert spacing == "trailing"
        return
    assert len(kept) == steps and kept[0] >= 1 and kept[-1] <= T
    assert all(a < b for a, b in pairwise(kept))


@pytest.mark.parametrize(
    ("spacing", "T", "steps", "expected"),
    [
        ("ddim-uniform", 1000, 10, list(range(1, 1000, 100))),
        ("ddim-uniform", 1000, 3, [1, 334, 667, 1000]),
        ("ddim-quad", 1000, 5, [1, 51, 201, 451, 801]),
        ("ddim-quad", 1000, 1, [1]),
        ("tau-linear", 1000, 4, [250, 500, 750, 1000]),
        ("tau-linear", 10, 4, [2, 5, 7, 10]),
        ("tau-quadratic", 1000, 5, [40, 160, 360, 640, 1000]),
        ("tau-quadratic", 10, 5, [1, 3, 6, 10]),  # floor(0.4 i^2) is 0 for i = 1
    ],
)
def test_literal_steps_of_ddim(spacing: str, T: int, steps: int, expected: list[int]) -> None:
    assert kept_steps(T, steps, SPACINGS[spacing]) == expected


@pytest.mark.parametrize("steps", [10, 20, 50, 100, 300, 1000])
def test_ddims_steps_are_those_of_its_release_without_the_repeated_ones(steps: int) -> None:
    uniform = [t + 1 for t in range(0, 1000, 1000 // steps)]
    quad = [int(t) + 1 for t in list(np.linspace(0, np.sqrt(1000 * 0.8), steps) ** 2)]
    assert kept_steps(1000, steps, SPACINGS["ddim-uniform"]) == uniform
    kept = kept_steps(1000, steps, SPACINGS["ddim-quad"])
    assert kept == sorted(set(quad)) and kept[-1] == 801
    repeated = {10: 0, 20: 0, 50: 1, 100: 4, 300: 28, 1000: 312}
    assert len(kept) == steps - repeated[steps]
    assert len(uniform) == {300: 334}.get(steps, steps)


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_every_step_of_ddim_is_one_of_the_chain_in_order(data: st.DataObject) -> None:
    T = data.draw(st.integers(2, 2000))
    steps, name = data.draw(st.integers(1, T)), data.draw(st.sampled_from(sorted(set(SPACINGS) - set(EXACT))))
    if name == "ldm" and (T - 1) % (T // steps) == 0:
        return  # refused
    kept = kept_steps(T, steps, SPACINGS[name])
    assert kept[0] >= 1 and kept[-1] <= T and all(a < b for a, b in pairwise(kept))
    assert len(kept) >= steps if name in ("ddim-uniform", "ldm") else len(kept) <= steps


@pytest.mark.parametrize("steps", [1, 10, 50, 200, 250, 300, 500])
def test_latent_diffusions_steps_are_one_above_ddims(steps: int) -> None:
    theirs = np.asarray(list(range(0, 1000, 1000 // steps))) + 1  # counted from 0
    if theirs[-1] == 1000:
        with pytest.raises(UserError, match=f"does not exist for {steps} of 1000 steps.* a step 1001"):
            kept_steps(1000, steps, SPACINGS["ldm"])
    else:
        assert kept_steps(1000, steps, SPACINGS["ldm"]) == (theirs + 1).tolist()


def test_the_spacings_that_leave_steps_out_of_the_whole_chain_are_known() -> None:
    whole = [name for name in SPACINGS if name != "ldm"]  # which has none of as many steps as the chain
    assert tuple(name for name in whole if len(kept_steps(1000, 1000, SPACINGS[name])) < 1000) == SHORT_OF_T
    assert SamplingSettings(steps=1000, spacing="ddim-quad").spacing_of(1000) == "ddim-quad"
    assert not SamplingSettings(steps=1000, spacing="ddim-uniform").strided(1000)


@pytest.mark.parametrize(
    ("name", "steps", "said"),
    [
        (
            "ddim-uniform",
            300,
            "visits 334 of 1,000 steps.* So many, since 300, which were asked for, does not divide 1,000",
        ),
        ("ddim-quad", 1000, "visits 688 of 1,000 .* 1,000 were asked for; 312 repeat a step"),
        ("even", 300, r"visits 300 of 1,000 steps, spacing 'even', counted from 1: 1, 4, \.\.\., 1000$"),
    ],
)
def test_a_number_of_steps_that_is_not_the_asked_one_is_explained(name: str, steps: int, said: str) -> None:
    assert re.search(said, visited(kept_steps(1000, steps, SPACINGS[name]), 1000, name, steps))


@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing"])
def test_three_spacings_are_those_of_diffusers(spacing: str) -> None:
    diffusers = pytest.importorskip("diffusers")
    for T in (20, 100, 999, 1000, 4000):
        scheduler = diffusers.DDPMScheduler(T, timestep_spacing=spacing)
        for steps in {*range(1, min(T, 130)), 200, 201, 250, 333, 500, 998, 999, 1000, T}:
            if steps > T:
                continue
            scheduler.set_timesteps(steps)
            theirs = [t + 1 for t in reversed(scheduler.timesteps.tolist())]
            if theirs[0] == 0:  # rounding gave them a step too many
                assert spacing == "trailing" and len(theirs) == steps + 1
                with pytest.raises(UserError, match=f"does not exist for {steps} of {T} steps"):
                    kept_steps(T, steps, SPACINGS[spacing])
            else:
                assert kept_steps(T, steps, SPACINGS[spacing]) == theirs, (T, steps)


@pytest.mark.parametrize("name", ["ddim50", "ddim100", "10,20,30", "25"])
def test_openais_other_spacings_are_refused_with_what_to_give(name: str) -> None:
    with pytest.raises(UserError, match=f"'{name}' is one of OpenAI's that is not offered.*'leading'.*--steps"):
        build_spacing(SamplingSettings(spacing=name))


def test_an_unknown_spacing_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"no spacing 'linspce'; did you mean 'linspace'\?"):
        build_spacing(SamplingSettings(spacing="linspce"))


@pytest.mark.parametrize("sampling", [{}, {"steps": 20, "spacing": "leading"}, {"spacing": "openai"}, {"steps": 7}])
def test_the_key_of_kept_samples_is_that_of_before_there_were_spacings(sampling: dict) -> None:
    wish, runtime = SamplingSettings(**sampling), Runtime()
    chain = {"sampler": "ancestral", "steps": sampling.get("steps", 20), "clip_x0": True}
    function = {"weights_sha256": "0", "process": {"T": 20}, "network": UNetSettings().named}
    expected = {**function, "sampling": chain, "seed": 3, **runtime.arithmetic}
    assert samples_depend_on(function, wish, 3, runtime) == expected


def test_samples_of_another_spacing_are_kept_under_another_key() -> None:
    function = {"process": {"T": 20}, "network": UNetSettings().named}
    keys = [
        json.dumps(samples_depend_on(function, SamplingSettings(steps=7, spacing=name), 0, Runtime()))
        for name in SPACINGS
    ]
    assert len(set(keys)) == len(SPACINGS)


def sampled(call, ckpt: Path, *more: object) -> tuple[dict, str, bytes]:
    """What `sample --json` prints and says, and the images."""
    out = ckpt.parent / f"{len(list(ckpt.parent.iterdir()))}.npz"
    done = call("sample", "--ckpt", ckpt, "--samples", 4, "--out", out, "--device", "cpu", "--json", *more)
    assert done.code == 0, done.err
    return json.loads(done.out), " ".join(done.err.split()), out.read_bytes()


def test_sample_names_the_kept_steps_and_draws_by_them(call, tmp_path: Path) -> None:
    ckpt = tiny_checkpoint(tmp_path / "tiny", T=20)
    whole, said, _ = sampled(call, ckpt)
    assert "visits" not in said and "kept_steps" not in whole and "spacing" not in whole
    found = {}
    for spacing in SPACINGS:
        made, said, found[spacing] = sampled(call, ckpt, "--steps", 7, "--spacing", spacing)
        kept = kept_steps(20, 7, SPACINGS[spacing])
        assert (made["spacing"], made["kept_steps"], made["sampling_steps"]) == (spacing, kept, len(kept))
        named, made_steps = ", ".join(map(str, kept)), len(kept)
        assert f"The chain visits {made_steps} of 20 steps, spacing '{spacing}', counted from 1: {named}" in said
    unnamed, said, images = sampled(call, ckpt, "--steps", 7)
    assert unnamed["spacing"] == "even" and images == found["even"]
    assert len({found[name] for name in ("even", "leading", "trailing")}) == 3
    _, said, _ = sampled(call, ckpt, "--steps", 13)
    assert "visits 13 of 20 steps, spacing 'even', counted from 1: 1, 3, ..., 20" in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ("--spacing", "leading"),
            "--spacing leading chooses among the 6 steps .* give fewer --steps, or leave it out",
        ),
        (("--spacing", "even", "--steps", "6"), "--spacing even chooses among the 6 steps .* all of them are visited"),
        (("--spacing", "ddim3", "--steps", "3"), "'ddim3' is one of OpenAI's that is not offered"),
        (("--spacing", "foo", "--steps", "3"), "no spacing 'foo'. Known: even, openai, leading, linspace, trailing"),
        (("--steps", "7"), "--steps 7 exceeds the 6 steps of the checkpoint's chain"),
    ],
)
def test_a_spacing_that_cannot_be_or_has_no_effect_is_refused(call, tmp_path: Path, options: tuple, said: str) -> None:
    ckpt, data = tiny_checkpoint(tmp_path / "tiny"), tiny_data(tmp_path / "data.npz")
    for command in (
        ("sample", "--out", tmp_path / "a.npz"),
        ("evaluate", "--data", data, "--results", tmp_path / "rows"),
    ):
        done = call(*command, "--ckpt", ckpt, "--device", "cpu", *options)
        assert done.code == 2 and "Traceback" not in done.err
        assert re.search(said, " ".join(done.err.split())), done.err


def test_the_help_names_every_spacing() -> None:
    *first, last = SPACINGS
    assert f"{', '.join(first)} or {last}" in Spacing.__metadata__[0].help


def test_a_spacing_goes_with_a_checkpoint_alone(call, tmp_path: Path) -> None:
    done = call("evaluate", "--samples", tmp_path, "--spacing", "leading")
    assert done.code == 2 and "--spacing does not go with --samples" in done.err


def test_a_row_says_its_spacing_and_another_is_another_row(call, tmp_path: Path) -> None:
    ckpt, data = tiny_checkpoint(tmp_path / "tiny"), tiny_data(tmp_path / "data.npz")
    command = (
        "evaluate", "--ckpt", ckpt, "--data", data, "--results", tmp_path / "rows", "--count", 16, "--bound-images", 0,
        "--device", "cpu", "--cache", tmp_path / "cache", "--steps", 4,
    )  # fmt: skip
    done = call(*command, "--spacing", "leading")
    assert done.code == 0, done.err
    assert "visits 4 of 6 steps, spacing 'leading', counted from 1: 1, 2, 3, 4" in " ".join(done.err.split())
    (row,) = read_rows(tmp_path / "rows")
    assert (row.setup.spacing, row.setup.sampling_steps) == ("leading", 4)
    assert "4 of T = 6 (leading)" in next((tmp_path / "rows").glob("*.md")).read_text()
    done = call(*command)
    assert done.code == 2 and "spacing: was leading, now even" in done.err


def test_a_records_conditions_hold_its_spacing_where_the_chain_is_strided() -> None:
    record = make_record(load_grid("table2"), "eps-mse-fixed")
    for changed, expected in (
        ({"steps": 50, "spacing": "openai"}, "openai"),
        ({"steps": None, "spacing": "openai"}, "even"),
    ):
        sampling = record.settings.sampling.model_copy(update=changed)
        told = record.model_copy(update={"settings": record.settings.model_copy(update={"sampling": sampling})})
        assert model_conditions(told, "is_mean")["sampling.spacing"] == expected
    assert "sampling.spacing" not in model_conditions(record, "bound_test_bits_per_dim")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (("sampling.spacing=leading",), "sampling.spacing = leading is of a chain of fewer steps"),
        (("sampling.spacing=ddim3", "sampling.steps=3"), "'ddim3' is one of OpenAI's that is not offered"),
        (("sampling.spacing=foo", "sampling.steps=3"), "no spacing 'foo'"),
    ],
)
def test_a_grid_refuses_such_a_spacing_before_anything_runs(call, tmp_path: Path, values: tuple, said: str) -> None:
    assignments = [word for value in values for word in ("--set", value)]
    done = call("ablate", "--preset", tiny_preset(tmp_path), "--results", tmp_path / "results", *assignments)
    assert done.code == 2 and said in " ".join(done.err.split())
    assert not (tmp_path / "results").exists()
