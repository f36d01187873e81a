"""Training of a classifier of noised images (Dhariwal, Nichol 2021, section 4; guided-diffusion's `classifier_train.py`).

Cross-entropy of the labels of training images at x_t, t uniform in 1..T; AdamW with the learning rate falling linearly to 0, as
released. There is no moving average, and none is released. On the CPU the same data, settings and number of threads give the same
weights.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddpm_bench.config.classifiers import ClassifierTraining
from ddpm_bench.data.codec import Codec
from ddpm_bench.data.images import ImageData, Split
from ddpm_bench.data.labels import told_apart
from ddpm_bench.data.shuffled import shuffled
from ddpm_bench.diffusion.process import q_sample
from ddpm_bench.diffusion.reverse import all_at
from ddpm_bench.diffusion.schedule import Schedule
from ddpm_bench.errors import UserError
from ddpm_bench.networks.classifier import NoisyClassifier
from ddpm_bench.runtime.batch import training_batch
from ddpm_bench.runtime.interrupt import check_stop
from ddpm_bench.runtime.observer import progress
from ddpm_bench.runtime.runtime import Runtime
from ddpm_bench.training.batches import borrowed_globals

LEARNER = "a classifier"
"""What it is called where data do not suit it."""
TOLD_AT = 5
"""Noise levels at which the accuracy is told, the least and the largest among them."""


@dataclass(frozen=True)
class TrainedClassifier:
    """network: in evaluation mode, on the CPU. loss: of the last step, nats. accuracy: share of the test images that are told apart
    at x_t, by t."""

    network: NoisyClassifier
    loss: float
    accuracy: dict[int, float]


def train_classifier(
    data: ImageData, codec: Codec, schedule: Schedule, training: ClassifierTraining, runtime: Runtime
) -> TrainedClassifier:
    """A classifier of the images of `data`, noised by `schedule`. `codec`: what x_0 is of them.

    UserError for data without labels, for images that its settings do not take, and for a loss that is no number. Raises Interrupted
    between steps: nothing is kept.
    """
    names, (channels, side, _) = told_apart(data, LEARNER), codec.shape(data.shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        network = NoisyClassifier(channels, len(names), side, training.network)
    network.to(runtime.device)
    remedy = "--batch N, which is another classifier"
    with borrowed_globals(runtime.device), training_batch(training.batch, "--batch", remedy):
        loss = _fit(network, data.train, codec, schedule, training)
        network.requires_grad_(False).eval()
        accuracy = {t: accuracy_at(network, data.test, codec, schedule, t) for t in told_at(schedule.T)}
    return TrainedClassifier(network.cpu(), loss, accuracy)


def told_at(T: int) -> list[int]:
    """The steps at which the accuracy is told."""
    return sorted({1 + round(i * (T - 1) / (TOLD_AT - 1)) for i in range(TOLD_AT)})


@torch.no_grad()
def accuracy_at(network: nn.Module, split: Split, codec: Codec, schedule: Schedule, t: int) -> float:
    """Share of the images whose largest logit at x_t is their label's; the noise is the same for every network."""
    assert split.labels is not None  # it was trained on labelled images
    device, right = next(network.parameters()).device, 0
    generator = torch.Generator(device).manual_seed(0)
    for images, labels in zip(split.images.split(256), split.labels.split(256), strict=True):
        check_stop()
        x0, steps = codec.encode(images.to(device)), all_at(t, len(images), device)
        logits = network(*_noised(schedule, x0, steps, generator))
        right += int((logits.argmax(1) == labels.to(device)).sum())
    return right / len(split)


def _noised(schedule: Schedule, x0: Tensor, t: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """x_t and the step, as a network is told them."""
    x_t = q_sample(schedule, x0, t, torch.randn(x0.shape, generator=generator, device=x0.device))
    return schedule.network_input(x_t, t), schedule.network_step(t)


def _fit(
    network: NoisyClassifier, split: Split, codec: Codec, schedule: Schedule, training: ClassifierTraining
) -> float:
    """The last step's loss."""
    assert split.labels is not None
    device = next(network.parameters()).device
    images, labels, loss = split.images.to(device), split.labels.to(device), torch.zeros((), device=device)
    optimizer = torch.optim.AdamW(
        network.parameters(), training.learning_rate, weight_decay=training.weight_decay, fused=device.type != "mps"
    )
    falling = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / training.steps)
    generator = torch.Generator(device).manual_seed(training.seed)
    order = shuffled(len(images), training.batch, training.seed)
    with progress(f"training a classifier on {len(images):,} images", training.steps, "images") as meter:
        for step in range(training.steps):
            check_stop()
            chosen = next(order).to(device)
            x0 = codec.encode(augmented(images[chosen], training, generator))
            t = torch.randint(1, schedule.T + 1, (len(x0),), generator=generator, device=device)
            loss = F.cross_entropy(network(*_noised(schedule, x0, t, generator)), labels[chosen])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            falling.step()
            if step % 20 == 0 or step + 1 == training.steps:
                meter.update(step + 1, loss.item(), per_unit=len(x0))
    if not math.isfinite(last := loss.item()):
        raise UserError("The classifier's loss is no number any more: train it with a smaller learning rate.")
    return last


def augmented(images: Tensor, training: ClassifierTraining, generator: torch.Generator) -> Tensor:
    """uint8 (B, C, side, side), mirrored and cropped at random as the settings say."""
    draws = torch.rand((4, len(images)), generator=generator, device=images.device)
    if training.flips:
        images = torch.where((draws[3] < 0.5)[:, None, None, None], images.flip(3), images)
    if training.crops == 1:
        return images
    share = training.crops + (1 - training.crops) * draws[0]  # of the side; the square lies anywhere within
    middle = (1 - share) * (2 * draws[1:3] - 1)  # (2, B), in units of half a side
    zeros = torch.zeros_like(share)
    affine = torch.stack([share, zeros, middle[0], zeros, share, middle[1]], 1).unflatten(1, (2, 3))
    grid = F.affine_grid(affine, list(images.shape), align_corners=False)
    cut = F.grid_sample(images.float(), grid, padding_mode="border", align_corners=False)
    return cut.round().clamp(0, 255).to(torch.uint8)
