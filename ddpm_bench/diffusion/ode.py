"""The probability flow ODE: the marginals of the diffusion without its noise (Song et al. 2021, section 4.3)

    dx/dl = 1/2 sqrt(1 - a) (eps(x, l) - sqrt(1 - a) x)          l = log sigma^2 = log((1 - a) / a),  a = alpha_bar

which is their dx = [f x - 1/2 g^2 s] dt with s = -eps / sqrt(1 - a), written in the time l: there no schedule appears, and
the ODE is that of any chain. Between two steps the network is told a fractional step, which a monotone cubic through
(l_t, its step at t) gives: exact at every step, smooth between. Below the first step it is told the first, as where a chain
takes its last step.

The density changes by d log p / dl = -div (dx/dl) along the way, the divergence taken by a probe v of entries +1 and -1,
v^T J v (Skilling, Hutchinson), or exactly, by as many products as there are dimensions.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy.integrate import solve_ivp
from scipy.interpolate import PchipInterpolator
from torch import Tensor, nn

from ddpm_bench.diffusion.denoiser import Denoiser
from ddpm_bench.diffusion.process import precise, predicted_eps
from ddpm_bench.diffusion.reverse import Diffusion
from ddpm_bench.errors import NotFinite, UserError
from ddpm_bench.networks.condition import Condition
from ddpm_bench.runtime.batch import Halving, Rows
from ddpm_bench.runtime.interrupt import check_stop

OnTime = Callable[[float], None]
"""watch(done): the share of the way, in 0..1."""


@dataclass(frozen=True)
class Carried:
    """Where the ODE has taken x, (B, C, H, W) in float64 where the device has it. divergence: its integral over l, (B,);
    0 without probes. calls: network calls an image."""

    x: Tensor
    divergence: Tensor
    calls: int


@dataclass(frozen=True)
class FlowODE:
    """The ODE of a denoiser, whose x_0 is not clipped here: a clipped one has no smooth flow.

    rtol, atol: of a step of RK45, relative and absolute; the defaults are those of Song et al. levels: l_1..l_T, (T,).
    Raises UserError for a chain of one step, and for a network whose output gives no eps.
    """

    denoiser: Denoiser
    rtol: float = 1e-5
    atol: float = 1e-5
    levels: np.ndarray = field(init=False, repr=False)
    _step_at: PchipInterpolator = field(init=False, repr=False)
    _halving: Halving = field(default_factory=Halving, repr=False)

    def __post_init__(self) -> None:
        check_flow(self.denoiser.diffusion)
        schedule = self.denoiser.schedule
        levels = schedule.sigma.square().log().numpy()
        object.__setattr__(self, "denoiser", replace(self.denoiser, clip_x0=False))
        object.__setattr__(self, "levels", levels)
        object.__setattr__(self, "_step_at", PchipInterpolator(levels, schedule.network_steps.double().numpy()))

    def given(self, condition: Condition | None) -> "FlowODE":
        """That of p(x | condition)."""
        return replace(self, denoiser=self.denoiser.given(condition))

    def velocity(self, x: Tensor, level: float, probes: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """dx/dl at x (B, C, H, W), and its divergence by the probes (P, B, C, H, W), the sum over P: (B,); 0 without."""
        noise = float(1 / (1 + np.exp(-level))) ** 0.5  # sqrt(1 - a)
        here = self._between(level)
        rows: dict[str, Rows] = {} if probes is None else {"probes": probes.transpose(0, 1)}
        if self.denoiser.condition is not None:
            rows["condition"] = self.denoiser.condition

        def called(x: Tensor, *parts: Any) -> tuple[Tensor, Tensor]:
            return here(x, **dict(zip(rows, parts, strict=True)))

        eps, trace = (torch.cat(parts) for parts in zip(*self._halving.parts(called, x, *rows.values()), strict=True))
        dims = 0 if probes is None else x[0].numel()
        return noise / 2 * (eps - noise * x), noise / 2 * (trace - noise * dims)

    def carry(
        self, x: Tensor, start: float, end: float, probes: Tensor | None = None,
        watch: OnTime = lambda done: None,
    ) -> Carried:  # fmt: skip
        """x (B, C, H, W) at level `start` taken to level `end`, with one step size for the whole batch.

        Step sizes follow the root mean square error over the batch, so an image's result depends on the others in its
        batch, within the tolerance. Raises Interrupted when a stop was asked for, and NotFinite where the ODE cannot be
        followed.
        """
        shape, size = x.shape, x.numel()

        def rates(level: float, state: np.ndarray) -> np.ndarray:
            check_stop()
            watch((level - start) / (end - start))
            at = torch.from_numpy(state[:size]).to(like).reshape(shape)
            rate, divergence = self.velocity(at, level, probes)
            made = torch.cat([rate.flatten(), divergence]).cpu().double().numpy()
            if not np.isfinite(made).all():
                raise NotFinite("the probability flow ODE cannot be followed: the network's output is not finite")
            return made

        like = precise(torch.zeros(0, device=x.device))
        state = np.concatenate([x.detach().cpu().double().numpy().ravel(), np.zeros(len(x))])
        found = solve_ivp(rates, (start, end), state, method="RK45", rtol=self.rtol, atol=self.atol, t_eval=[end])
        if not found.success:
            raise NotFinite(f"the probability flow ODE cannot be followed ({found.message.rstrip('.')})")
        last = torch.from_numpy(found.y[:, -1]).to(like)
        return Carried(last[:size].reshape(shape), last[size:], int(found.nfev))

    def _between(self, level: float) -> Callable[..., tuple[Tensor, Tensor]]:
        """eps at a level, and v^T (d eps / dx) v summed over the probes v, if there are any; told a condition, if there is one."""
        denoiser = self.denoiser
        known = min(max(level, self.levels[0]), self.levels[-1])
        schedule = denoiser.schedule.at_level(level, float(self._step_at(known)))
        diffusion, dtype = replace(denoiser.diffusion, schedule=schedule), _dtype(denoiser)

        def eps_of(x: Tensor, condition: Condition | None) -> Tensor:
            network = denoiser.network if condition is None else partial(denoiser.network, condition=condition)
            x, t = x.to(dtype), torch.ones(len(x), dtype=torch.int64, device=x.device)
            x0 = diffusion.reverse(network, x, t, clip_x0=False).x0
            return predicted_eps(schedule, x0, precise(x), t)

        def here(x: Tensor, probes: Tensor | None = None, condition: Condition | None = None) -> tuple[Tensor, Tensor]:
            if probes is None:
                with torch.no_grad():
                    return eps_of(x, condition), torch.zeros_like(x[:, 0, 0, 0])
            with torch.enable_grad():
                x = x.detach().requires_grad_()
                eps, trace = eps_of(x, condition), torch.zeros_like(x[:, 0, 0, 0])
                for i, v in enumerate(probes.unbind(1), 1):
                    (vJ,) = torch.autograd.grad((eps * v).sum(), x, retain_graph=i < probes.shape[1])
                    trace = trace + (vJ * v).flatten(1).sum(1)
                return eps.detach(), trace

        return here


def check_flow(diffusion: Diffusion) -> None:
    """UserError for a chain that has no such ODE."""
    if diffusion.parameterization.name == "mu":
        raise UserError(
            "The probability flow ODE needs eps, and a network that predicts mu gives it with its errors divided by about 1e-4 "
            "at t = T: its likelihood by the ODE is not measured. The bound is: `ddpm-bench nll` without --ode."
        )
    if diffusion.schedule.T < 2:
        raise UserError("The probability flow ODE runs through the steps of a chain; a chain of one step has none.")


def _dtype(denoiser: Denoiser) -> torch.dtype:
    """What the network computes in; a plain function computes in what it gets."""
    parameters = denoiser.network.parameters() if isinstance(denoiser.network, nn.Module) else iter(())
    return next(parameters, torch.zeros(0, dtype=torch.float64)).dtype
