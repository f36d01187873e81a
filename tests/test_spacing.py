"""Which steps a strided chain visits: literal numbers, OpenAI's rule, and diffusers' own schedulers where it is installed."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddpm_bench.config.settings import SamplingSettings
from ddpm_bench.diffusion.spacing import SPACINGS, evenly_spaced, kept_steps
from ddpm_bench.errors import UserError
from ddpm_bench.models.build import build_spacing


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


@pytest.mark.parametrize("spacing", SPACINGS)
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
