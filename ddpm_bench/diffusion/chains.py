"""What the paper shows of a chain beside its end: progressive generation and interpolation

progressive    what is predicted of x_0 along the way, x0_hat = (x_t - sqrt(1 - alpha_bar_t) eps) / sqrt(alpha_bar_t)
               for a network that predicts the noise                                     (section 4.3, Figure 6)
interpolate    x_t = (1 - lambda) x_t^A + lambda x_t^B, then the reverse process from there (section 4.4, Figure 8)
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ddpm_bench.diffusion.noise import BlockNoise, batches
from ddpm_bench.diffusion.process import q_sample
from ddpm_bench.diffusion.reverse import all_at
from ddpm_bench.diffusion.sample_labels import check_one_class
from ddpm_bench.diffusion.samplers import Chain, Denoised, check_single, sample
from ddpm_bench.errors import UserError
from ddpm_bench.runtime.observer import progress
from ddpm_bench.runtime.runtime import Runtime


def stations(T: int, count: int) -> list[int]:
    """`count` of the steps T..0 of a chain, T and 0 among them, as evenly as integers allow; all if these are fewer."""
    gaps = min(count - 1, T)
    return [(2 * T * (gaps - i) + gaps) // (2 * gaps) for i in range(gaps + 1)]  # T (1 - i / gaps), rounded half up


def progressive(chain: Chain, *, count: int, at: Sequence[int], seed: int, runtime: Runtime | None = None) -> Tensor:
    """x_0 as predicted from x_t at each t of `at`, in 0..T, where t = 0 stands for the sample itself.

    uint8 (count, len(at), C, H, W) on the CPU. The chains are those of `sample` with the same arguments, bit for bit.
    """
    seen: dict[int, list[Tensor]] = {t: [] for t in at}

    def watch(first: int, now: Denoised) -> None:
        if now.t in seen:
            seen[now.t].append(chain.codec.decode(now.x0).cpu())

    for _, images in sample(chain, count=count, seed=seed, runtime=runtime, watch=watch):
        if 0 in seen:
            seen[0].append(images)
    return torch.stack([torch.cat(seen[t]) for t in at], 1)


def interpolate(
    chain: Chain, ends: Tensor, t: int, weights: Sequence[float], *, seed: int, runtime: Runtime | None = None
) -> Tensor:
    """Between the two images `ends`, uint8 (2, C, H, W), by way of x_t: uint8 (len(weights), C, H, W) on the CPU.

    Both ends are diffused to x_t with the same noise, so that x_t is as noisy between them as at them; a weight lambda
    of 0 reconstructs the first, 1 the second. All weights share the noise of the reverse process too, which depends on
    `seed` alone: what differs between the images comes from lambda. UserError unless t is in 1..T, and for
    images of several classes.
    """
    check_single(chain, "An interpolation")
    check_one_class(chain.labels)
    if not 1 <= t <= chain.T:
        raise UserError(f"t = {t} is no step of this chain, whose steps are 1 to {chain.T}.")
    runtime, shape, found = runtime or Runtime(), chain.denoiser.shape, []
    x0 = chain.codec.encode(ends.to(runtime.device))
    with progress(f"interpolation at t = {t}", t * len(weights), "steps") as meter:
        for start, size in batches(len(weights), runtime.network_batch(shape[1])):
            noise = BlockNoise(seed, 0, 1, shape, runtime.device)
            a, b = q_sample(chain.denoiser.schedule, x0, all_at(t, 2, x0.device), noise.draw())
            share = torch.tensor(weights[start : start + size], device=x0.device).reshape(-1, 1, 1, 1)
            mixed = (1 - share) * a + share * b
            for now in chain.told(start, size, runtime.device).denoise(mixed, t, noise):
                meter.update(start * t + size * (t + 1 - now.t))
            found.append(chain.codec.decode(now.x).cpu())
    return torch.cat(found)
