"""x_T as the code of an image: DDIM without noise is a map that can be walked in both directions (Song, Meng, Ermon 2021).

    encode   x_{t+1} = sqrt(alpha_bar_{t+1}) x_0 + sqrt(1 - alpha_bar_{t+1}) eps, both as predicted from x_t, for t = 0..T-1
             (eq. 14 backwards, section 5.4)
    slerp    between two codes along the sphere on which noise lies (app. D.5)

t counts the steps that the chain visits. The image is x_0 itself, at alpha_bar = 1, of which the network knows no step: it
is told that of t = 1. So the steps of decoding are walked back one by one, to x_T. improved-diffusion's
`ddim_reverse_sample_loop` makes the steps in between alike, but takes the image for x_1 and goes one step further, to noise
at alpha_bar = 0.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ddpm_bench.diffusion.ddim import DDIM
from ddpm_bench.diffusion.noise import BlockNoise, batches
from ddpm_bench.diffusion.process import precise
from ddpm_bench.diffusion.sample_labels import check_one_class
from ddpm_bench.diffusion.samplers import Chain, check_single
from ddpm_bench.diffusion.step import predict
from ddpm_bench.errors import UserError
from ddpm_bench.runtime.interrupt import check_stop
from ddpm_bench.runtime.observer import progress
from ddpm_bench.runtime.runtime import Runtime


def check_deterministic(chain: Chain) -> None:
    """UserError where x_T does not determine the image."""
    check_single(chain, "What x_T says of an image")
    check_one_class(chain.labels)
    if chain.sampler.draws:
        raise UserError(
            f"The image must depend on x_T alone, and the sampler '{chain.sampler.name}' draws more noise. Use 'ddim' with "
            "eta = 0."
        )


def check_reversible(chain: Chain) -> None:
    """UserError where the steps of a chain are not those that encoding walks back."""
    check_single(chain, "What x_T says of an image")
    check_one_class(chain.labels)
    if chain.sampler != DDIM(eta=0.0):
        raise UserError(
            f"Encoding walks the steps of 'ddim' with eta = 0 back, and they are {chain.sampler}. Leave other samplers out."
        )


@torch.inference_mode()
def encode(chain: Chain, x0: Tensor) -> Tensor:
    """x_T of x_0, like it, (B, C, H, W). Raises Interrupted between two steps."""
    check_reversible(chain)
    denoiser, x = chain.told(0, len(x0), x0.device).denoiser, x0
    # alpha_bar by step, from 0 on
    bars = torch.cat([torch.ones(1, dtype=torch.float64), denoiser.schedule.alpha_bar]).tolist()
    with denoiser.evaluating():
        for t in range(chain.T):
            check_stop()
            _, eps = predict(denoiser, x, max(t, 1))
            clean = (precise(x) - (1 - bars[t]) ** 0.5 * eps) / bars[t] ** 0.5
            x = (bars[t + 1] ** 0.5 * clean + (1 - bars[t + 1]) ** 0.5 * eps).to(x0.dtype)
    return x


@torch.inference_mode()
def codes_of(chain: Chain, images: Tensor, device: torch.device) -> Tensor:
    """x_T of images, uint8 (N, C, H, W), all at once."""
    return encode(chain, chain.codec.encode(images.to(device)))


def decode(chain: Chain, x_T: Tensor) -> Tensor:
    """The images, uint8 (B, C, H, W) on the CPU, that a chain without noise makes of x_T."""
    check_deterministic(chain)
    x = x_T
    for now in chain.told(0, len(x_T), x_T.device).denoise(
        x_T, chain.T, BlockNoise(0, 0, 1, tuple(x_T.shape[1:]), x_T.device)
    ):
        x = now.x
    return chain.codec.decode(x).cpu().clone()


def reconstruct(chain: Chain, images: Tensor, runtime: Runtime | None = None) -> Tensor:
    """Images encoded and decoded again: uint8 (N, C, H, W) on the CPU, as given."""
    runtime, found = runtime or Runtime(), []
    with progress(f"encoding in {chain.T} steps", len(images), "images") as meter:
        for start, size in batches(len(images), runtime.network_batch(chain.denoiser.shape[1])):
            codes = codes_of(chain, images[start : start + size], runtime.device)
            found.append(decode(chain, codes))
            meter.update(start + size)
    return torch.cat(found)


def slerp(a: Tensor, b: Tensor, weights: Sequence[float]) -> Tensor:
    """sin((1 - w) theta) / sin(theta) a + sin(w theta) / sin(theta) b for each weight w, (len(weights), *a.shape).

    theta is the angle between a and b. Where it is 0 this is the straight line, its limit.
    """
    x, y = precise(a), precise(b)
    cosine = (x * y).sum() / (x.norm() * y.norm())
    theta = cosine.clamp(-1, 1).arccos().clamp(min=1e-6)
    w = torch.tensor(weights, dtype=x.dtype, device=x.device).reshape(-1, *(1,) * x.ndim)
    return ((((1 - w) * theta).sin() * x + (w * theta).sin() * y) / theta.sin()).to(a.dtype)


def between(chain: Chain, codes: Tensor, weights: Sequence[float], runtime: Runtime | None = None) -> Tensor:
    """The images between the two codes x_T, (2, C, H, W), for each weight: uint8 (len(weights), C, H, W) on the CPU."""
    runtime, mixed = runtime or Runtime(), slerp(codes[0], codes[1], weights)
    parts = batches(len(mixed), runtime.network_batch(chain.denoiser.shape[1]))
    return torch.cat([decode(chain, mixed[start : start + size]) for start, size in parts])
