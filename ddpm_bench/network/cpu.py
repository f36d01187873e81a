"""Two layers with PyTorch's own parameters, semantics and GPU code, and a faster way on the CPU.

In channels-last memory PyTorch's CPU GroupNorm and its dropout mask took a fifth of a training step of a small U-Net.
Both are a few passes over the image; here they are written as such passes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class GroupNorm(nn.GroupNorm):
    """y = weight (x - mean) / sqrt(var + eps) + bias, mean and variance over the channels of a group and all pixels."""

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu":
            return super().forward(x)
        return _GroupNorm.apply(x, self.weight, self.bias, self.num_groups, self.eps)


class _GroupNorm(torch.autograd.Function):
    """Per image and channel, y = scale x + shift and dx = a dy + b x + c: only sums over pixels decide the coefficients."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
        grouped = (x.shape[0], groups, -1)  # (B, groups, channels of a group)
        mean = x.mean((2, 3)).view(grouped).mean(2, keepdim=True)  # (B, groups, 1)
        square = x.square().mean((2, 3)).view(grouped).mean(2, keepdim=True)
        inverse = (square - mean.square()).clamp_(min=0).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, mean, inverse)
        scale = weight.view(groups, -1) * inverse
        shift = bias.view(groups, -1) - mean * scale
        return torch.addcmul(_over_pixels(shift, x), x, _over_pixels(scale, x))

    @staticmethod
    def backward(ctx, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, inverse = ctx.saved_tensors
        grouped, pixels = (x.shape[0], mean.shape[1], -1), x.shape[2] * x.shape[3]
        sum_dy = dy.sum((2, 3)).view(grouped)
        sum_dy_n = ((dy * x).sum((2, 3)).view(grouped) - mean * sum_dy) * inverse  # with n = (x - mean) inverse
        w = weight.view(grouped[1:])
        a = w * inverse
        b = -(w * sum_dy_n).mean(2, keepdim=True) / pixels * inverse.square()
        c = -(w * sum_dy).mean(2, keepdim=True) / pixels * inverse - mean * b
        dx = torch.addcmul(_over_pixels(c.expand_as(a), x), x, _over_pixels(b.expand_as(a), x))
        dx.addcmul_(dy, _over_pixels(a, x))
        return dx, sum_dy_n.sum(0).flatten(), sum_dy.sum(0).flatten(), None, None


def _over_pixels(values: Tensor, x: Tensor) -> Tensor:
    """(B, groups, channels of a group) -> (B, C, 1, 1)."""
    return values.reshape(x.shape[0], x.shape[1], 1, 1)


class Dropout(nn.Dropout):
    """Each value is zero with probability p, else divided by 1 - p; drawn from torch's global generator.

    On the CPU from 31 random bits a value instead of a double, with p rounded to them.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0 or x.device.type != "cpu":
            return super().forward(x)
        kept = torch.empty_like(x, dtype=torch.int32).random_() >= round(self.p * 2**31)
        return x * kept.to(x.dtype).mul_(1 / (1 - self.p))
