"""Which steps a strided chain visits: `steps` of 1..T, increasing.

    even       from 1 to T, as evenly as integers allow, halves rounded up
    openai     the same as improved-diffusion computes it: strides added up in floating point, halves rounded to even
    leading    1, 1 + r, 1 + 2r, ... with r = floor(T / steps): from 1, short of T
    linspace   from 1 to T in floating point, halves rounded to even
    trailing   T, T - T / steps, ..., halves rounded to even: from T, short of 1
    ddim-uniform   1, 1 + c, 1 + 2c, ... up to T, with c = floor(T / steps): from 1, short of T; where `steps` does not
                   divide T these are more than `steps`
    ddim-quad      1 + floor(u^2) for `steps` even values of u in 0..sqrt(0.8 T): from 1 to about 0.8 T
    ldm            2, 2 + c, 2 + 2c, ...: one above those of ddim-uniform, as latent diffusion's release has them
    tau-linear     floor(c i) with c = T / steps, for i = 1..steps: from about c to T
    tau-quadratic  floor(c i^2) with c = T / steps^2: from about c to T

"leading", "linspace" and "trailing" are those of diffusers' schedulers (their `timestep_spacing`; names by Lin et al.
2024, "Common Diffusion Noise Schedules and Sample Steps are Flawed"). Theirs and OpenAI's count steps from 0, ours, as the
paper's, from 1.

"ldm" is of Rombach et al. 2022. Their last step ends at the noise level of step 1; here, as in every chain, at x_0. Theirs reaches a
step T + 1, which no network knows, where c divides T - 1.

The other four are of DDIM (Song, Meng, Ermon 2021): `--skip_type` of its release, which counts from 0, and app. D.2 of the
paper, which counts from 1 and says of c that it brings the last step near to T. "ddim-quad" and "tau-quadratic" name the
lowest steps several times where `steps` is large (of 1000: ddim-quad 1 of 50, 4 of 100, 312 of 1000), and "tau-quadratic"
a step 0: such steps change nothing, and are left out.

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
"""spacing(T, steps): the steps that are visited, for 1 <= steps <= T; those of DDIM may be more or fewer than `steps`."""


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


def ddim_uniform(T: int, steps: int) -> list[int]:
    """`steps` of them or more."""
    return list(range(1, T + 1, T // steps))


def ldm(T: int, steps: int) -> list[int]:
    """`steps` of them or more. UserError where the last would be T + 1."""
    kept = [t + 1 for t in ddim_uniform(T, steps)]
    if kept[-1] > T:
        raise UserError(f"Spacing 'ldm' does not exist for {steps} of {T} steps: as its release computes it, it visits a step {T + 1}. "
                        "Choose fewer steps, of a number that divides T, or another spacing.")  # fmt: skip
    return kept


def ddim_quad(T: int, steps: int) -> list[int]:
    """`steps` of them or fewer."""
    return sorted({1 + int(t) for t in np.linspace(0, np.sqrt(T * 0.8), steps) ** 2})


def tau_linear(T: int, steps: int) -> list[int]:
    return [T * i // steps for i in range(1, steps + 1)]


def tau_quadratic(T: int, steps: int) -> list[int]:
    """`steps` of them or fewer."""
    return sorted({T * i**2 // steps**2 for i in range(1, steps + 1)} - {0})


SPACINGS: dict[str, Spacing] = {
    "even": evenly_spaced,
    "openai": openai,
    "leading": leading,
    "linspace": linspace,
    "trailing": trailing,
    "ddim-uniform": ddim_uniform,
    "ldm": ldm,
    "ddim-quad": ddim_quad,
    "tau-linear": tau_linear,
    "tau-quadratic": tau_quadratic,
}


def kept_steps(T: int, steps: int, spacing: Spacing = evenly_spaced) -> list[int]:
    """The steps that a chain visits of which `steps` were asked for. UserError unless 1 <= steps <= T."""
    if not 1 <= steps <= T:
        raise UserError(f"A chain of {T} steps cannot be sampled in {steps}; choose 1 to {T} sampling steps.")
    return spacing(T, steps)


def visited(kept: list[int], T: int, name: str, asked: int) -> str:
    """What is said of the steps of a strided chain of which `asked` were asked for."""
    shown = kept if len(kept) <= SHOWN else [*kept[:2], "...", kept[-1]]
    steps = ", ".join(map(str, shown))
    said = f"The chain visits {len(kept):,} of {T:,} steps, spacing '{name}', counted from 1: {steps}"
    if len(kept) > asked:
        said += f". So many, since {asked:,}, which were asked for, does not divide {T:,}"
    if len(kept) < asked:
        said += (
            f". {asked:,} were asked for; {asked - len(kept):,} repeat a step, which changes nothing, and are left out"
        )
    return said
