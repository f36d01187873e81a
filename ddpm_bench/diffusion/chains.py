"""What the paper shows of a chain beside its end: progressive generation and interpolation

progressive    what is predicted of x_0 along the way, x0_hat = (x_t - sqrt(1 - alpha_bar_t) eps) / sqrt(alpha_bar_t)
               for a network that predicts the noise                                     (section 4.3, Figure 6)
interpolate    x_t = (1 - lambda) x_t^A + lambda x_t^B, then the reverse process from there (section 4.4, Figure 8)
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ddpm_bench.data.images import to_model, to_uint8
from ddpm_bench.diffusion.noise import BlockNoise, batches
from ddpm_bench.diffusion.process import q_sample
from ddpm_bench.diffusion.reverse import Diffusion, Network, all_at
from ddpm_bench.diffusion.sampler import Denoised, denoise, sample
from ddpm_bench.errors import UserError
from ddpm_bench.runtime.interrupt import NEVER, Stop


def stations(T: int, count: int) -> list[int]:
    """`count` of the steps T..0 of a chain, T and 0 among them, as evenly as integers allow; all if these are fewer."""
    gaps = min(count - 1, T)
    return [(2 * T * (gaps - i) + gaps) // (2 * gaps) for i in range(gaps + 1)]  # T (1 - i / gaps), rounded half up


def progressive(
    diffusion: Diffusion,
    network: Network,
    *,
    shape: tuple[int, int, int],
    count: int,
    at: Sequence[int],
    seed: int,
    batch: int,
    device: torch.device | str,
    clip_x0: bool = True,
    stop: Stop = NEVER,
    on_progress: Callable[[int], None] | None = None,
) -> Tensor:
    """x_0 as predicted from x_t at each t of `at`, in 0..T, where t = 0 stands for the sample itself.

    uint8 (count, len(at), C, H, W) on the CPU. The chains are those of `sample` with the same arguments, bit for bit.
    """
    seen = torch.empty((count, len(at), *shape), dtype=torch.uint8)
    column = {t: index for index, t in enumerate(at)}

    def watch(first: int, now: Denoised) -> None:
        if now.t in column:
            seen[first : first + len(now.x0), column[now.t]] = to_uint8(now.x0).cpu()

    chains = sample(
        diffusion, network, shape=shape, count=count, seed=seed, batch=batch, device=device, clip_x0=clip_x0,
        stop=stop, on_progress=on_progress, watch=watch,
    )  # fmt: skip
    for first, images in chains:
        if 0 in column:
            seen[first : first + len(images), column[0]] = images
    return seen


def interpolate(
    diffusion: Diffusion,
    network: Network,
    ends: Tensor,
    t: int,
    weights: Sequence[float],
    *,
    seed: int,
    batch: int,
    device: torch.device | str,
    clip_x0: bool = True,
    stop: Stop = NEVER,
    on_progress: Callable[[int], None] | None = None,
) -> Tensor:
    """Between the two images `ends`, uint8 (2, C, H, W), by way of x_t: uint8 (len(weights), C, H, W) on the CPU.

    Both ends are diffused to x_t with the same noise, so that x_t is as noisy between them as at them; a weight lambda
    of 0 reconstructs the first, 1 the second. All weights share the noise of the reverse process too, which depends on
    `seed` alone: what differs between the images comes from lambda. `on_progress` hears network calls, one an image
    and step. UserError unless t is in 1..T.
    """
    if not 1 <= t <= diffusion.schedule.T:
        raise UserError(f"t = {t} is no step of this chain, whose steps are 1 to {diffusion.schedule.T}.")
    x0, found = to_model(ends.to(device)), []
    for start, size in batches(len(weights), batch):
        noise = BlockNoise(seed, 0, 1, tuple(ends.shape[1:]), device)
        a, b = q_sample(diffusion.schedule, x0, all_at(t, 2, x0.device), noise.draw())
        share = torch.tensor(weights[start : start + size], device=device).reshape(-1, 1, 1, 1)
        mixed = (1 - share) * a + share * b
        for now in denoise(diffusion, network, mixed, t, noise, clip_x0=clip_x0, stop=stop):
            if on_progress is not None:
                on_progress(start * t + size * (t + 1 - now.t))
        found.append(to_uint8(now.x).cpu())
    return torch.cat(found)
