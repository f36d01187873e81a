"""Random weights of one layer, for the state dicts that tests build from published layouts."""

import math

import torch
from torch import Tensor


def put_layer(state: dict[str, Tensor], name: str, *shape: int) -> None:
    """`name`.weight of this shape, of unit gain, and `name`.bias. One dimension: the scale of a norm."""
    weight = torch.randn(*shape) / math.sqrt(math.prod(shape[1:]))
    state[f"{name}.weight"] = weight if len(shape) > 1 else 1 + 0.2 * weight
    state[f"{name}.bias"] = 0.2 * torch.randn(shape[0])
