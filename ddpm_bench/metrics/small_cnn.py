"""A small classifier whose last hidden layer measures images, for data and machines where Inception makes no sense.

The Frechet distance and the Inception Score (Heusel et al. 2017, eq. 6; Salimans et al. 2016, section 4) need features
and class probabilities of *some* classifier. This one has 0.16 million weights, so that two cores score thousands of
images in seconds, and 64 features, so that a few hundred images give a covariance of full rank.

One set of convolutions serves several image sizes; only normalisation has statistics of its own for each size (Wang et
al. 2020, "Resolution Switchable Networks"). Images are taken at their own size: nothing is resized, so blur and noise
stay visible. The weights in `embedded/` were trained on the complete Fashion-MNIST; its test images were used for the
report in the card only.
"""

from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor, nn
from torch.nn import functional

from ddpm_bench.config.limits import LEAST_SIDE, MOST_SIDE
from ddpm_bench.config.values import first_fault
from ddpm_bench.errors import UserError
from ddpm_bench.files import read_json, replacing, write_text
from ddpm_bench.networks.weights import mismatch, outline, read_tensors

SHIPPED = Path(__file__).with_name("embedded") / "extractor.safetensors"
RESERVED = ("inception", "efficientnet-lite0", "embedded", "dinov2", "clip")
"""Names that no other extractor may have."""

FEATURES = 64
WIDTHS = (24, 48, 64)
GRID = 4  # positions a side that the features tell apart
SPATIAL_CHANNELS = 4
"""Of the map before the features; a spatial distance is of these alone, at GRID x GRID places, as many numbers as features."""


class Card(BaseModel):
    """What is known about an extractor's weights: the .json beside the .safetensors, of which `sha256` is the hash."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["ddpm-bench extractor 1"] = "ddpm-bench extractor 1"
    name: str = Field(min_length=1)
    sha256: str
    channels: Literal[1, 3]
    sizes: tuple[Annotated[int, Field(ge=LEAST_SIDE, le=MOST_SIDE)], ...] = Field(min_length=1, max_length=64)
    classes: tuple[str, ...] = Field(min_length=2)
    feature_dim: Literal[64]
    parameters: int
    test_accuracy: dict[int, float]  # image size -> share of the test images
    data_name: str
    data_sha256: dict[int, str]  # image size -> hash of the prepared pixels
    data_notes: dict[int, tuple[str, ...]] = {}  # image size -> what was said of preparing them; none in older cards
    train_images: int
    test_images: int
    seed: int
    epochs: int
    steps: int
    batch: int
    learning_rate: float
    wall_time_s: float
    versions: dict[str, str]


class Normalized(nn.Module):
    """A layer without bias, then batch normalisation with weights and statistics of its own for each image size."""

    def __init__(
        self, layer: nn.Conv2d | nn.Linear, norm: type[nn.BatchNorm1d] | type[nn.BatchNorm2d], sizes: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.layer = layer
        self.norm = nn.ModuleDict({str(size): norm(layer.weight.shape[0]) for size in sizes})

    def forward(self, x: Tensor, size: int) -> Tensor:
        return self.norm[str(size)](self.layer(x))


def convolution(channels: int, out: int, sizes: tuple[int, ...], stride: int = 1) -> Normalized:
    """A 3x3 convolution and its normalisation."""
    return Normalized(nn.Conv2d(channels, out, 3, stride, 1, bias=False), nn.BatchNorm2d, sizes)


class Residual(nn.Module):
    """x + two convolutions (He et al. 2015)."""

    def __init__(self, channels: int, sizes: tuple[int, ...]) -> None:
        super().__init__()
        self.first = convolution(channels, channels, sizes)
        self.second = convolution(channels, channels, sizes)

    def forward(self, x: Tensor, size: int) -> Tensor:
        return functional.relu(x + self.second(functional.relu(self.first(x, size)), size))


class SmallCNN(nn.Module):
    """uint8 (N, C, size, size), size one of `sizes` -> features (N, 64) and logits (N, classes), both float32.

    Features are rectified units, as Inception's 2048 are, but they know where in the image something is. The last layer
    has no bias, so its logits are the "unbiased" ones from which torch-fidelity takes the Inception Score.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, channels: int, classes: int, sizes: tuple[int, ...]) -> None:
        super().__init__()
        low, middle, high = WIDTHS
        self.sizes = sizes
        self.register_buffer("pixel_mean", torch.zeros(1, channels, 1, 1))
        self.register_buffer("pixel_std", torch.ones(1, channels, 1, 1))
        self.stem = convolution(channels, low, sizes, stride=2)
        self.low = Residual(low, sizes)
        self.down = convolution(low, middle, sizes, stride=2)
        self.middle = Residual(middle, sizes)
        self.widen = convolution(middle, high, sizes)
        self.gather = Normalized(nn.Linear(high * GRID**2, FEATURES, bias=False), nn.BatchNorm1d, sizes)
        self.classify = nn.Linear(FEATURES, classes, bias=False)
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        size = images.shape[-1]
        x = (images.float() / 255 - self.pixel_mean) / self.pixel_std  # (N, C, size, size)
        x = x.contiguous(memory_format=torch.channels_last)
        x = self.low(functional.relu(self.stem(x, size)), size)  # (N, 24, size/2, size/2)
        x = self.middle(functional.relu(self.down(x, size)), size)  # (N, 48, size/4, size/4)
        x = functional.adaptive_avg_pool2d(functional.relu(self.widen(x, size)), GRID)  # (N, 64, 4, 4)
        features = functional.relu(self.gather(x.flatten(1), size))
        return features, self.classify(features)


def card_path(weights: Path) -> Path:
    return weights.with_suffix(".json")


def write_extractor(path: Path, weights: bytes, card: Card) -> None:
    """Write the weights and their card, each in one step. Reading them checks that they belong together."""
    with replacing(path) as temporary:
        temporary.write_bytes(weights)
    write_text(card_path(path), card.model_dump_json(indent=2) + "\n")


def read_card(path: Path) -> Card:
    """The card beside the weights file `path`. UserError where there is none or it is another kind of file."""
    beside = card_path(path)
    remedy = "Make an extractor with `ddpm-bench extractor train`, or choose `embedded`, `efficientnet-lite0` or `inception`."
    try:
        return Card.model_validate(read_json(beside))
    except FileNotFoundError:
        missing = path if not path.exists() else beside
        raise UserError(f"There is no extractor at '{path}': '{missing}' is missing. {remedy}") from None
    except OSError as error:
        raise UserError(f"Cannot read the extractor's card '{beside}': {error.strerror}. {remedy}") from error
    except ValueError as error:
        problem = first_fault(error) if isinstance(error, ValidationError) else error
        raise UserError(f"'{beside}' is not the card of an extractor ({problem}). {remedy}") from error


def build(card: Card, weights: bytes) -> SmallCNN:
    """The network of `card` with `weights` (safetensors), in evaluation mode. UserError when these do not fit it."""
    try:
        tensors = read_tensors(weights)
        with outline():
            wrong = mismatch(SmallCNN(card.channels, len(card.classes), card.sizes), tensors)
    except ValueError as error:
        wrong = str(error)
    if wrong:
        raise UserError(f"The weights of the extractor '{card.name}' do not fit its card ({wrong}). Train it again.")
    network = SmallCNN(card.channels, len(card.classes), card.sizes)
    network.load_state_dict(tensors)
    return network.requires_grad_(False).eval()
