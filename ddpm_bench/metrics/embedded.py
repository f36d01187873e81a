"""Training of a small extractor on any labelled data set: `ddpm-bench extractor train`.

So the shipped one was made, too:

    ddpm-bench extractor train --data fashion-mnist --resize average --name fashion-mnist --out extractor.safetensors

Cross-entropy on the training split, every image at every size in each step, AdamW under one cycle of the learning rate
(Smith and Topin 2018). Images are never flipped or shifted: an extractor that cannot tell a mirrored shoe would not see
a model that mirrors them. The test split is looked at once, after the last step, for the accuracies in the card.
"""

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor
from torch.nn import functional

from ddpm_bench.config.resizing import Resize
from ddpm_bench.config.settings import DataSettings
from ddpm_bench.data import ImageData, load_data
from ddpm_bench.data.images import BLOCK
from ddpm_bench.data.labels import told_apart
from ddpm_bench.data.shuffled import shuffled
from ddpm_bench.errors import UserError
from ddpm_bench.files import check_weights_file
from ddpm_bench.metrics.small_cnn import FEATURES, RESERVED, Card, SmallCNN, write_extractor
from ddpm_bench.records.provenance import versions
from ddpm_bench.runtime.interrupt import check_stop
from ddpm_bench.runtime.observer import progress
from ddpm_bench.runtime.runtime import Runtime

WEIGHT_DECAY = 0.05
WARM_UP = 0.25  # share of the steps in which the learning rate rises


@dataclass(frozen=True)
class ExtractorTraining:
    """How an extractor is trained for images of `sizes` pixels a side, others brought there by `resize`. Its scores will be
    headed "FD (name)".

    UserError for a name of the package's own, and for sizes out of range.
    """

    name: str
    sizes: tuple[int, ...] = (16, 32)
    resize: Resize | None = None
    epochs: int = 6
    batch: int = 128
    learning_rate: float = 4e-3
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.name.strip() or self.name in RESERVED:
            raise UserError(
                f"An extractor cannot have the name '{self.name}': results are headed FD (name). Choose a --name of "
                "its own."
            )
        if not self.sizes or min(self.sizes) < 8 or max(self.sizes) > 1024:
            raise UserError(
                f"An extractor is for image sizes from 8 to 1024 pixels, not {list(self.sizes)}. Write, say, "
                "--sizes 16,32."
            )


def train_extractor(
    source: str, out: Path, training: ExtractorTraining, runtime: Runtime, *, root: Path | None = None
) -> Card:
    """Train an extractor on labelled data: `source` and `root` as in DataSettings.

    Writes `out` (safetensors) and, beside it, its card (.json), and returns the card. On the CPU the same arguments,
    number of threads and torch give the same weights. UserError for data without labels or with one class only, for a
    size that the data cannot be fitted to, and for an `out` that is not a .safetensors file. Raises Interrupted between
    steps: nothing is written then.
    """
    began = time.monotonic()
    check_weights_file(out, "An extractor")
    sizes = sorted(set(training.sizes))
    fitted = {size: _at(size, source, training, root) for size in sizes}
    first = fitted[sizes[0]]
    classes, labels, test_labels = told_apart(first, "an extractor"), first.train.labels, first.test.labels
    assert labels is not None and test_labels is not None
    steps = training.epochs * (len(labels) // training.batch) or training.epochs
    network = _untrained(first.shape[0], len(classes), fitted, training.seed).to(runtime.device)
    _fit(network, fitted, labels, steps, training)
    network.cpu().eval()
    weights = safetensors.torch.save({key: value.contiguous() for key, value in network.state_dict().items()})
    card = Card(
        name=training.name,
        sha256=hashlib.sha256(weights).hexdigest(),
        channels=first.shape[0],
        sizes=network.sizes,
        classes=classes,
        feature_dim=FEATURES,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        test_accuracy={size: _accuracy(network, each, test_labels) for size, each in fitted.items()},
        data_name=first.name,
        data_sha256={size: each.sha256 for size, each in fitted.items()},
        data_notes={size: each.notes for size, each in fitted.items()},
        train_images=len(first.train),
        test_images=len(first.test),
        seed=training.seed,
        epochs=training.epochs,
        steps=steps,
        batch=training.batch,
        learning_rate=training.learning_rate,
        wall_time_s=round(time.monotonic() - began, 1),
        versions=versions(),
    )
    write_extractor(out, weights, card)
    return card


def _at(size: int, source: str, training: ExtractorTraining, root: Path | None) -> ImageData:
    """The images at one of the sizes."""
    return load_data(DataSettings(source=source, size=size, resize=training.resize, root=root))


def _untrained(channels: int, classes: int, fitted: dict[int, ImageData], seed: int) -> SmallCNN:
    """A network with random weights that knows the mean and deviation of the training pixels, all sizes together."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = SmallCNN(channels, classes, tuple(fitted))
    levels = torch.arange(256, dtype=torch.float64) / 255
    blocks = [block for data in fitted.values() for block in data.train.images.split(BLOCK)]
    for channel in range(channels):
        counts = torch.stack([block[:, channel].flatten().bincount(minlength=256) for block in blocks]).sum(0)
        share = counts.double() / counts.sum()
        mean = (share * levels).sum()
        network.pixel_mean[:, channel] = mean
        network.pixel_std[:, channel] = ((share * levels**2).sum() - mean**2).clamp(min=1e-4).sqrt()
    return network


def _fit(
    network: SmallCNN, fitted: dict[int, ImageData], labels: Tensor, steps: int, training: ExtractorTraining
) -> None:
    device, batch = network.pixel_mean.device, min(training.batch, len(labels))
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, training.learning_rate, total_steps=steps, pct_start=WARM_UP
    )
    order = shuffled(len(labels), training.batch, training.seed)
    network.train()
    with progress(f"training an extractor on {len(labels):,} images", steps, "images") as meter:
        for step in range(steps):
            check_stop()
            chosen = next(order)
            target = labels[chosen].to(device)
            for data in fitted.values():
                _, logits = network(data.train.images[chosen].to(device))
                loss = functional.cross_entropy(logits, target)
                loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
            if step % 20 == 0 or step + 1 == steps:
                meter.update(step + 1, loss.item(), per_unit=batch)


@torch.no_grad()
def _accuracy(network: SmallCNN, data: ImageData, labels: Tensor) -> float:
    """Share of the test images whose largest logit is their label's."""
    right = sum(
        int((network(images)[1].argmax(dim=1) == few).sum())
        for images, few in zip(data.test.images.split(256), labels.split(256), strict=True)
    )
    return right / len(labels)
