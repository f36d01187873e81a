"""DINOv2 and CLIP, whose features FD-DINOv2 and CMMD are taken of. Their weights are given as a file; nothing is downloaded.

Both networks are timm's ViT-L/14, with everything around them as the metric's own code has it, since each part moves numbers:

    FD-DINOv2   class token after the last norm; images brought to 224 pixels by Pillow (bicubic), ImageNet mean and deviation
                (Stein et al. 2023; code dgm-eval, which takes the network from torch.hub). The positions of 37x37 patches are
                resampled to 16x16 as DINOv2's release does it: bicubic, without antialias, for 16.1 patches a side.
    CMMD        projected class token of CLIP, with its QuickGELU; images brought to 336 pixels by Pillow (bicubic), CLIP's
                mean and deviation (Jayasumana et al. 2024; code cmmd-pytorch).

The published files are known by their SHA-256 before they are opened; others are refused, or marked as unverified.
"""

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from ddpm_bench.config.metrics import CLIP_DISTANCE, FD_DINOV2
from ddpm_bench.errors import UserError
from ddpm_bench.files import given_content
from ddpm_bench.metrics.efficientnet import INSTALL, TIMM
from ddpm_bench.networks.weights import mismatch, odd, outline, read_pickle, read_tensors

State = dict[str, Tensor]


@dataclass(frozen=True)
class Vision:
    """A network of timm and what its metric does around it.

    file, sha256: the published weights. distance: the label of its Frechet distance with these. converted: their names
    and shapes turned into timm's. outputs: of the projection of the class token; 0: there is none.
    """

    name: str
    architecture: str
    outputs: int
    side: int
    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]
    features: int
    file: str
    sha256: str
    distance: str
    converted: Callable[[State], State]

    @property
    def input(self) -> str:
        return f"images resized to {self.side}x{self.side} (Pillow's bicubic)"


class ClassToken(nn.Module):
    """uint8 (B, 3, H, W) -> features of the class token (B, D), and no logits (B, 0)."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, body: nn.Module, of: Vision) -> None:
        super().__init__()
        self.body, self.side = body, of.side
        self.register_buffer("mean", torch.tensor(of.mean).view(3, 1, 1))
        self.register_buffer("deviation", torch.tensor(of.deviation).view(3, 1, 1))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = resized(images, self.side).to(self.mean.device).float() / 255
        features = self.body((x - self.mean) / self.deviation)
        return features, features[:, :0]


def resized(images: Tensor, side: int) -> Tensor:
    """uint8 (B, 3, H, W) -> (B, 3, side, side) by Pillow's bicubic, which rounds between its two passes; on the CPU."""
    made = [
        np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC))
        for pixels in images.permute(0, 2, 3, 1).cpu().numpy()
    ]
    return torch.from_numpy(np.stack(made)).permute(0, 3, 1, 2)


def load_vision(of: Vision, path: Path, allow_unverified: bool) -> tuple[ClassToken, str]:
    """The network with the weights in `path` (safetensors, or written by torch.save), and their SHA-256.

    UserError where they are not the published ones, unless `allow_unverified`, or of another network.
    """
    if not find_spec(TIMM):
        raise UserError(f"The extractor '{of.name}' needs timm, which comes with the extra `colour`: {INSTALL}")
    content, sha256 = given_content(path, f"the weights of {of.name}", f"Give the published '{of.file}'.")
    if sha256 != of.sha256 and not allow_unverified:
        raise UserError(
            f"'{path}' is not the published '{of.file}': its SHA-256 is {sha256}, expected {of.sha256}. Nothing of it was "
            "loaded. Get the right file, or pass --allow-unverified-weights: every table will then say that the numbers are "
            "not comparable."
        )
    state = _state(of, path, content)
    del content  # 1 GB and more
    with outline():
        body = network(of)
    if wrong := mismatch(body, state):
        raise UserError(
            f"'{path}' holds weights of another network than {of.name} in timm {version(TIMM)}: {wrong}. Give the published "
            f"'{of.file}'."
        )
    body.load_state_dict(state, assign=True)
    return ClassToken(body, of).requires_grad_(False).eval(), sha256


def network(of: Vision) -> nn.Module:
    """timm's network at the metric's side, with initial values."""
    import timm

    return timm.create_model(of.architecture, pretrained=False, img_size=of.side, num_classes=of.outputs)


def _state(of: Vision, path: Path, content: bytes) -> State:
    try:
        state = read_tensors(content) if path.suffix == ".safetensors" else read_pickle(content)
    except (pickle.UnpicklingError, ValueError) as error:
        raise UserError(
            f"'{path}' is damaged or holds something other than tensors; nothing in it was run. Give the published '{of.file}'."
        ) from error
    if not isinstance(state, dict) or odd(state):
        raise UserError(f"'{path}' holds no tensors by name. Give the published '{of.file}'.")
    try:
        return of.converted(state)
    except (KeyError, RuntimeError) as error:
        raise UserError(
            f"'{path}' holds weights of another network than {of.name} ({error}). Give the published '{of.file}'."
        ) from error


# ---- DINOv2 ---------------------------------------------------------------------------------------------------------

TRAINED_SIDE, PATCHES, OFFSET = 37, 16, 0.1
"""Patches a side in training and at 224 pixels; DINOv2 asks for 16.1 of these, and gets 16 at another scale."""


def _dinov2(state: State) -> State:
    """The release's names are timm's; the token of masked patches is for training alone."""
    held = {name: value for name, value in state.items() if name != "mask_token"}
    return held | {"pos_embed": dinov2_positions(held["pos_embed"])}


def dinov2_positions(positions: Tensor) -> Tensor:
    """(1, 1 + 37 * 37, D) -> (1, 1 + 16 * 16, D), as DINOv2's interpolate_pos_encoding; the class token's stays."""
    grid = positions[:, 1:].unflatten(1, (TRAINED_SIDE, TRAINED_SIDE)).permute(0, 3, 1, 2)
    scale = (PATCHES + OFFSET) / TRAINED_SIDE
    small = functional.interpolate(grid.float(), scale_factor=(scale, scale), mode="bicubic")
    return torch.cat([positions[:, :1], small.flatten(2).transpose(1, 2)], 1)


DINOV2 = Vision(
    name="dinov2",
    architecture="vit_large_patch14_dinov2",
    outputs=0,
    side=224,
    mean=(0.485, 0.456, 0.406),
    deviation=(0.229, 0.224, 0.225),
    features=1024,
    file="dinov2_vitl14_pretrain.pth",
    sha256="d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428",
    distance=FD_DINOV2,
    converted=_dinov2,
)

# ---- CLIP -----------------------------------------------------------------------------------------------------------

_CLIP = {
    "vision_model.pre_layrnorm": "norm_pre", "vision_model.post_layernorm": "norm", "visual_projection": "head",
    "vision_model.embeddings.patch_embedding": "patch_embed.proj",
}  # fmt: skip
"""transformers' names of layers (pre_layrnorm is spelt so) -> timm's; and those within a block."""
_CLIP_BLOCK = {
    "layer_norm1": "norm1", "layer_norm2": "norm2", "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2",
    "self_attn.out_proj": "attn.proj",
}  # fmt: skip
_LAYERS, _EMBEDDINGS = "vision_model.encoder.layers.", "vision_model.embeddings."


def _clip(state: State) -> State:
    """Of transformers' CLIPModel, whose other half reads text. The projection has no bias, timm's has one of zeros."""
    made, parts = {}, {}
    for name, value in state.items():
        layer, _, kind = name.rpartition(".")
        if layer in _CLIP:
            made[f"{_CLIP[layer]}.{kind}"] = value
        elif name.startswith(_LAYERS):
            number, _, inside = layer.removeprefix(_LAYERS).partition(".")
            if inside in _CLIP_BLOCK:
                made[f"blocks.{number}.{_CLIP_BLOCK[inside]}.{kind}"] = value
            else:
                parts[number, inside, kind] = value
    for number, inside, kind in parts:
        if inside == "self_attn.q_proj":
            qkv = [parts[number, f"self_attn.{which}_proj", kind] for which in "qkv"]
            made[f"blocks.{number}.attn.qkv.{kind}"] = torch.cat(qkv)
    made["cls_token"] = state[f"{_EMBEDDINGS}class_embedding"].view(1, 1, -1)
    made["pos_embed"] = state[f"{_EMBEDDINGS}position_embedding.weight"][None]
    return made | {"head.bias": torch.zeros(len(made["head.weight"]))}


CLIP = Vision(
    name="clip",
    architecture="vit_large_patch14_clip_quickgelu_336",
    outputs=768,
    side=336,
    mean=(0.48145466, 0.4578275, 0.40821073),
    deviation=(0.26862954, 0.26130258, 0.27577711),
    features=768,
    file="pytorch_model.bin of openai/clip-vit-large-patch14-336",
    sha256="c6032c2e0caae3dc2d4fba35535fa6307dbb49df59c7e182b1bc4b3329b81801",
    distance=CLIP_DISTANCE,
    converted=_clip,
)

VISION = {each.name: each for each in (DINOV2, CLIP)}
