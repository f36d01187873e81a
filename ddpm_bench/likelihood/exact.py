"""The bound with every t of every image, one draw of noise each: the paper's own measurement (section 3.3, 4.1)."""

import time

import numpy as np
import torch
from torch import Tensor

from ddpm_bench.data.images import to_model
from ddpm_bench.diffusion.bound import bound_term, prior_bits_per_dim
from ddpm_bench.diffusion.noise import BOUND, BlockNoise
from ddpm_bench.diffusion.process import precise
from ddpm_bench.diffusion.reverse import Diffusion, Network, all_at, evaluating
from ddpm_bench.likelihood.bound import Bound, Scored
from ddpm_bench.likelihood.ledger import Arrays, Ledger
from ddpm_bench.runtime.interrupt import NEVER, Stop
from ddpm_bench.runtime.observer import Meter, progress

SAVE_EVERY_S = 60


def bits_per_dim(
    diffusion: Diffusion,
    network: Network,
    images: Tensor,
    *,
    seed: int,
    batch: int,
    device: torch.device | str,
    clip_x0: bool = True,
    decoder: str = "exact",
    ledger: Ledger | None = None,
    stop: Stop = NEVER,
    title: str = "bound",
) -> Bound:
    """The whole bound of `images`, uint8 (N, C, H, W), by N * T network calls.

    The noise depends on `seed` and the image's index only, not on `batch`. Modules are scored in evaluation mode and put
    back as they were. What `ledger` holds is not measured again. Raises UserError for images that are not uint8, or none;
    Interrupted, after saving, when `stop` is set.
    """
    scored = Scored(diffusion, network, images, seed, batch, device, clip_x0, decoder)
    ledger, T = ledger or Ledger(), diffusion.schedule.T
    with torch.inference_mode(), evaluating(network), progress(title, len(images) * T, "evaluations") as meter:
        for start, end, state in ledger.pieces("exact", len(images), batch):
            if not state or state["left"] > 0:
                _score(scored, start, end, state, ledger, stop, meter)
    parts = [arrays for _, _, arrays in ledger.read("exact")]
    prior, middle, first = (
        torch.from_numpy(np.concatenate([part[name] for part in parts])) for name in ("prior", "middle", "first")
    )
    terms, mse = (
        torch.from_numpy(sum(part[name] for part in parts)) / len(images) for name in ("terms", "squared_error")
    )
    nothing = torch.zeros_like(prior)
    return Bound(prior, middle, first, nothing, nothing, terms, mse)


def _score(scored: Scored, start: int, end: int, state: Arrays, ledger: Ledger, stop: Stop, meter: Meter) -> None:
    """Images start..end, from where `state` stopped down to t = 1, saving from time to time."""
    T, size = scored.diffusion.schedule.T, end - start
    x0 = to_model(scored.images[start:end].to(scored.device))
    noise = BlockNoise(scored.seed, start, size, tuple(x0.shape[1:]), scored.device, stream=BOUND)
    zeros = precise(torch.zeros(size + 2 * T, device=x0.device)).split([size, T, T])
    if state:
        sums = [
            torch.as_tensor(state[name], dtype=zeros[0].dtype, device=x0.device)
            for name in ("middle", "terms", "squared_error")
        ]
        left = int(state["left"])
    else:
        sums, left = [part.clone() for part in zeros], T
    middle, terms, squared_error = sums
    for _ in range(T - left):
        noise.draw()  # draws that the saved part has used

    def save(left: int, first: Tensor) -> None:
        values = {
            "prior": prior_bits_per_dim(scored.diffusion.schedule, x0),
            "middle": middle,
            "first": first,
            "terms": terms,
        }
        values["squared_error"] = squared_error
        arrays = {name: value.cpu().double().numpy() for name, value in values.items()}
        ledger.save("exact", start, end, arrays | {"left": np.array(left)})

    saved = time.monotonic()
    for t in range(left, 0, -1):
        if stop.requested or time.monotonic() - saved > SAVE_EVERY_S:
            save(t, torch.zeros_like(middle))
            saved = time.monotonic()
            stop.check()
        term = bound_term(
            scored.diffusion,
            scored.network,
            x0,
            all_at(t, size, x0.device),
            noise.draw(),
            scored.clip_x0,
            scored.decoder,
        )
        terms[t - 1] = term.bits.sum()
        squared_error[t - 1] = (x0 - term.x0).square().flatten(1).mean(1).sum()
        if t > 1:
            middle += term.bits
        meter.update(start * T + size * (T + 1 - t))
    save(0, term.bits)
