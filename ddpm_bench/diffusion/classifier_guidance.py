"""Guidance by a classifier of noised images ("Diffusion Models Beat GANs on Image Synthesis", Dhariwal, Nichol 2021, section 4.1, 4.2).

    g = grad log p(y | x_t)                                     of the classifier, by x_t
    mean^ = mean + s Sigma g                                    samplers that draw around the mean         (Algorithm 1)
    eps^ = eps - sqrt(1 - alpha_bar_t) s g                      samplers that take x_0 and eps             (Algorithm 2)

eps^ is the eps of q(x_t) p(y | x_t)^s; the paper's Algorithm 2 has s among its inputs and not in this line, its release has it.
x_0 follows from eps^, and is not clipped again. Algorithm 1 is derived with g at the mean, of x_{t-1}; the release takes it at x_t
and t ("a slight bug", its authors say, without notable change). Both are here: `at`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddpm_bench.diffusion.schedule import Schedule
from ddpm_bench.errors import UserError
from ddpm_bench.runtime.batch import Halving

Place = Literal["x_t", "mean"]
"""Where the gradient is taken."""


@dataclass(frozen=True)
class ClassifierGuidance:
    """Samples are guided to the classes `labels`, int64 (B,), of the images that a chain is at.

    classifier: classifier(x_t, step) -> logits (B, K), told x_t and the step as a denoiser's network is. scale: s. at: the gradient
    is taken at x_t and t, or at the mean and t - 1, where that is a step of the chain.
    """

    classifier: Callable[[Tensor, Tensor], Tensor]
    scale: float
    at: Place = "x_t"
    labels: Tensor | None = None
    _halving: Halving = field(default_factory=Halving, repr=False, compare=False)

    def toward(self, labels: Tensor) -> "ClassifierGuidance":
        """To these classes, on their device."""
        if isinstance(self.classifier, nn.Module):
            self.classifier.to(labels.device)
        return replace(self, labels=labels)

    def mean(self, schedule: Schedule, mean: Tensor, variance: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """mean + s Sigma g, for the mean (B, C, H, W) of p(x_{t-1} | x_t) and its variance, which broadcasts against it."""
        where, when = (x_t, t) if self.at == "x_t" else (mean.to(x_t.dtype), (t - 1).clamp(min=1))
        return mean + self.scale * variance * self.gradient(schedule, where, when).to(mean.dtype)

    def eps(self, schedule: Schedule, eps: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """eps - sqrt(1 - alpha_bar_t) s g, like eps (B, C, H, W)."""
        g = self.gradient(schedule, x_t, t).to(eps.dtype)
        return eps - schedule.at("sqrt_one_minus_alpha_bar", t, eps) * self.scale * g

    def gradient(self, schedule: Schedule, x: Tensor, t: Tensor) -> Tensor:
        """g at x (B, C, H, W) and t int64 (B,) in 1..T, like x. UserError where no classes are asked for."""
        if self.labels is None:
            raise UserError(
                "A chain that is guided by a classifier needs a class for each image, and what is asked for has none. Leave "
                "guidance out: sampling.classifier_scale=0, --classifier-scale 0."
            )
        if len(self.labels) != len(x):
            raise ValueError(f"{len(self.labels)} labels for {len(x)} images")

        def part(x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
            # Chains run in inference mode, whose tensors no gradient is taken of: these are copies from outside of it.
            with torch.inference_mode(False), torch.enable_grad():
                x, t, labels = x.clone().requires_grad_(), t.clone(), labels.clone()
                logits = self.classifier(schedule.network_input(x, t), schedule.network_step(t))
                chosen = F.log_softmax(logits, 1).gather(1, labels[:, None])
                return torch.autograd.grad(chosen.sum(), x)[0]

        return torch.cat(list(self._halving.parts(part, x, t, self.labels)))
