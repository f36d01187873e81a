"""Classifier-free guidance: what a network predicts of a class, away from what it predicts of none (Ho, Salimans 2022)

    eps~ = (1 + w) eps(x_t, c) - w eps(x_t, 0)          their w                                           (eq. 6)
         = eps(x_t, 0) + s (eps(x_t, c) - eps(x_t, 0))  the scale s = 1 + w, as the releases of LDM and DiT have it

s = 1 is the conditional model itself, s = 0 the unconditional one. What is set apart is the network's output, before
anything is made of it: so x_0 is clipped once, of the guided prediction. Each parameterization is affine in eps at a given
x_t, with one factor for both halves, so for each of them, mu among them, this is the guidance of eps. A learned variance is
that of the conditional half.
"""

from torch import Tensor, cat, nn

from ddpm_bench.networks.condition import Condition
from ddpm_bench.networks.mixed import Mixed


class Guided(nn.Module):
    """`network`, called with the labels of the images and without; see the module.

    no_class: the label that stands for none. channels: so many first channels of the prediction are guided, None: all of
    it. The release of DiT guides the first three of a latent's four.
    """

    def __init__(self, network: nn.Module, scale: float, no_class: int, channels: int | None = None) -> None:
        super().__init__()
        self.network, self.scale, self.no_class, self.channels = network, scale, no_class, channels
        self._of_parts: dict[nn.Module, Guided] = {}

    def at(self, step: float) -> "Guided":
        """Of two networks for different steps the one that predicts at a step that is known without asking the device."""
        if not isinstance(self.network, Mixed):
            return self
        part = self.network.at(step)
        if part not in self._of_parts:  # the same one again and again
            self._of_parts[part] = Guided(part, self.scale, self.no_class, self.channels)
        return self._of_parts[part]

    def forward(self, x_t: Tensor, step: Tensor, condition: Condition) -> Tensor:
        """(B, outputs * C, H, W) of x_t (B, C, H, W): two calls, one after the other, so that memory is that of one."""
        given = self.network(x_t, step, condition)
        without = self.network(x_t, step, condition.unlabelled(self.no_class))
        guided = self.channels or x_t.shape[1]
        head = without[:, :guided] + self.scale * (given[:, :guided] - without[:, :guided])
        return cat([head, given[:, guided:]], 1)
