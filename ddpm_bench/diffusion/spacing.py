"""Which steps a strided chain visits: `steps` of 1..T, increasing.

    even       from 1 to T, as evenly as integers allow, halves rounded up
    openai     the same as improved-diffusion computes it: strides added up in floating point, halves rounded to even
    leading    1, 1 + r, 1 + 2r, ... with r = floor(T / steps): from 1, short of T
    linspace   from 1 to T in floating point, halves rounded to even
    trailing   T, T - T / steps, ..., halves rounded to even: from T, short of 1

The last three are those of diffusers' schedulers (their `timestep_spacing`; names by Lin et al. 2024, "Common Diffusion
Noise Schedules and Sample Steps are Flawed"). Theirs and OpenAI's count steps from 0, ours, as the paper's, from 1.

Only the visited steps are named so. What is done between them is always `Schedule.respaced`: betas derived anew from the
alpha_bar of the visited steps. diffusers' `DDPMScheduler` does the same, with two differences: in older versions (and in
`DDIMScheduler`) the step after t is taken to be t - floor(T / steps), which "linspace" and "trailing" may not visit; and
where the lowest visited step is not 1, as in "trailing", noise is added after it too, while the last step here is the mean.
"""

from collections.abc import Callable

import numpy as np

from ddpm_bench.errors import UserError

SHOWN = 12
"""So many steps are all named."""
Spacing = Callable[[int, int], list[int]]
"""spacing(T, steps): the steps that are visited, for 1 <= steps <= T."""


def evenly_spaced(T: int, steps: int) -> list[int]:
    """T is always among them, and 1 too where steps > 1."""
    if steps == 1:
        return [T]
    gaps = steps - 1
    return [1 + (2 * i * (T - 1) + gaps) // (2 * gaps) for i in range(steps)]  # i (T - 1) / gaps, rounded half up


def openai(T: int, steps: int) -> list[int]:
    """One section of their `space_timesteps`; a single step is step 1, the cleanest."""
    stride = (T - 1) / (steps - 1) if steps > 1 else 1.0
    kept, at = [], 0.0
    for _ in range(steps):
        kept.append(1 + round(at))
        at += stride
    return kept


def leading(T: int, steps: int) -> list[int]:
    return [1 + i * (T // steps) for i in range(steps)]


def linspace(T: int, steps: int) -> list[int]:
    return [1 + int(t) for t in np.linspace(0, T - 1, steps).round()]


def trailing(T: int, steps: int) -> list[int]:
    """UserError for the few `steps` where rounding takes theirs one step too far, to a step 0 that no network knows."""
    kept = [int(t) for t in np.arange(T, 0, -T / steps).round()[::-1]]
    if kept[0] == 0:
        raise UserError(f"Spacing 'trailing' does not exist for {steps} of {T} steps: as diffusers computes it, rounding "
                        "adds a step 0. Choose another number of steps, or another spacing.")  # fmt: skip
    return kept


SPACINGS: dict[str, Spacing] = {
    "even": evenly_spaced,
    "openai": openai,
    "leading": leading,
    "linspace": linspace,
    "trailing": trailing,
}


def kept_steps(T: int, steps: int, spacing: Spacing = evenly_spaced) -> list[int]:
    """The steps that a chain of `steps` visits. UserError unless 1 <= steps <= T."""
    if not 1 <= steps <= T:
        raise UserError(f"A chain of {T} steps cannot be sampled in {steps}; choose 1 to {T} sampling steps.")
    return spacing(T, steps)


def visited(kept: list[int], T: int, name: str) -> str:
    """What is said of the steps of a strided chain."""
    shown = kept if len(kept) <= SHOWN else [*kept[:2], "...", kept[-1]]
    steps = ", ".join(map(str, shown))
    return f"The chain visits {len(kept):,} of {T:,} steps, spacing '{name}', counted from 1: {steps}"
