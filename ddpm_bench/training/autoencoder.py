"""Training of a KL-regularised autoencoder, the first stage of latent diffusion (Rombach et al. 2022, section 3.1).

    loss = (|x - D(z)| or (x - D(z))^2, summed, + kl_weight KL(q(z|x) || N(0, 1))) / batch,   z ~ q(z|x)

The release has LPIPS and a discriminator beside the first term, and a learned log variance that divides it. There is nothing of
these here: reconstructions are blurrier than theirs, and published reconstruction FIDs are not to be expected. Images are not
flipped. On the CPU the same data, settings and number of threads give the same weights.
"""

import hashlib
import math
import time

import torch
from torch import Tensor

from ddpm_bench.config.autoencoders import AutoencoderTraining
from ddpm_bench.data.autoencoders import AutoencoderCard, Reconstruction, packed
from ddpm_bench.data.images import ImageData, to_model
from ddpm_bench.data.latents import Latents
from ddpm_bench.data.shuffled import shuffled
from ddpm_bench.errors import UserError
from ddpm_bench.metrics.extractor import Extractor
from ddpm_bench.metrics.fidelity import distance_between
from ddpm_bench.networks.autoencoder import Autoencoder, kl
from ddpm_bench.records.provenance import versions
from ddpm_bench.runtime.batch import training_batch
from ddpm_bench.runtime.interrupt import check_stop
from ddpm_bench.runtime.observer import progress
from ddpm_bench.runtime.runtime import Runtime
from ddpm_bench.training.batches import borrowed_globals

WARM_UP = 0.1
"""Share of the steps in which the learning rate rises."""


def train_autoencoder(
    data: ImageData, training: AutoencoderTraining, runtime: Runtime, extractor: Extractor | None = None
) -> tuple[bytes, AutoencoderCard]:
    """The content of the autoencoder's file, and its card. Its reconstructions are scored where there is an extractor.

    UserError for images that it does not take, and for a loss that is no number. Raises Interrupted between steps: nothing is kept.
    """
    began, settings = time.monotonic(), training.network
    Latents("autoencoder", settings.factor, settings.channels).shape(data.shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        network = Autoencoder(data.shape[0], settings)
    network.to(runtime.device)
    remedy = "--batch N, which is another autoencoder"
    with borrowed_globals(runtime.device), training_batch(training.batch, "--batch", remedy):
        loss, nats = _fit(network, data.train.images, training)
    network.requires_grad_(False).eval()
    scale = scale_of(network, first_batch(data.train.images, training), training.seed)
    content = packed(network, scale)
    codec = Latents("autoencoder", settings.factor, settings.channels, network, scale)
    card = AutoencoderCard(
        sha256=hashlib.sha256(content).hexdigest(),
        image_channels=data.shape[0],
        factor=settings.factor,
        scale=scale,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        training=training,
        data_name=data.name,
        data_sha256=data.sha256,
        size=data.shape[1],
        train_images=len(data.train),
        loss=loss,
        kl_nats=nats,
        reconstruction=reconstruction(codec, data.test.images, runtime, extractor),
        wall_time_s=round(time.monotonic() - began, 1),
        versions=versions(*(extractor.packages if extractor else ())),
    )
    return content, card


def first_batch(images: Tensor, training: AutoencoderTraining) -> Tensor:
    """The images of the first training step."""
    return images[next(shuffled(len(images), training.batch, training.seed))]


@torch.no_grad()
def scale_of(network: Autoencoder, images: Tensor, seed: int) -> float:
    """1 / std of all entries of z ~ q(z|x) of these images: one number, as the release's `scale_by_std` has it."""
    device = next(network.parameters()).device
    deviation = _drawn(*network.moments(to_model(images.to(device))), torch.Generator(device).manual_seed(seed)).std()
    if not 0 < float(deviation) < math.inf:
        raise UserError(
            "The latents of the autoencoder are all the same or no numbers: train it with a smaller kl_weight."
        )
    return 1 / float(deviation)


def reconstruction(codec: Latents, images: Tensor, runtime: Runtime, extractor: Extractor | None) -> Reconstruction:
    """How images, uint8 (N, C, H, W), come back from their encoding; PSNR is the mean over images."""
    made, blocks = torch.empty_like(images), images.split(256)
    with progress("reconstructing", len(images), "images") as meter:
        for number, block in enumerate(blocks):
            check_stop()
            made[256 * number : 256 * number + len(block)] = codec.decode(codec.encode(block.to(runtime.device))).cpu()
            meter.update(256 * number + len(block))
    error = torch.cat([(a.double() - b.double()).flatten(1) for a, b in zip(made.split(256), blocks, strict=True)])
    psnr = 20 * math.log10(255) - 10 * error.square().mean(1).clamp(min=1e-10).log10()
    found = Reconstruction(images=len(images), absolute_error=float(error.abs().mean()), psnr=float(psnr.mean()))
    if extractor is None:
        return found
    scored = {
        "distance": extractor.info.labels[0],
        "fd": distance_between(made, images, extractor, runtime),
        "extractor_sha256": extractor.info.sha256,
    }
    return found.model_copy(update=scored)


def _fit(network: Autoencoder, images: Tensor, training: AutoencoderTraining) -> tuple[float, float]:
    """The last step's loss and KL, an image."""
    device = next(network.parameters()).device
    optimizer = torch.optim.Adam(network.parameters(), fused=device.type in ("cpu", "cuda", "mps"))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, training.learning_rate, total_steps=training.steps, pct_start=WARM_UP
    )
    order, noise = (
        shuffled(len(images), training.batch, training.seed),
        torch.Generator(device).manual_seed(training.seed),
    )
    batch = min(training.batch, len(images))
    images = images.to(device)
    loss = nats = torch.zeros((), device=device)
    with progress(f"training an autoencoder on {len(images):,} images", training.steps, "images") as meter:
        for step in range(training.steps):
            check_stop()
            x = to_model(images[next(order).to(device)])
            mean, log_variance = network.moments(x)
            error = x - network.decode(_drawn(mean, log_variance, noise))
            error = error.abs() if training.loss == "L1" else error.square()
            nats = kl(mean, log_variance).sum() / batch
            loss = error.sum() / batch + training.kl_weight * nats
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            loss, nats = loss.detach(), nats.detach()
            if step % 20 == 0 or step + 1 == training.steps:
                meter.update(step + 1, loss.item(), per_unit=batch)
    if not bool(loss.isfinite()):
        raise UserError("The autoencoder's loss is no number any more: train it with a smaller learning rate.")
    return float(loss), float(nats)


def _drawn(mean: Tensor, log_variance: Tensor, generator: torch.Generator) -> Tensor:
    """z ~ q(z|x)."""
    return mean + torch.exp(0.5 * log_variance) * torch.randn(mean.shape, generator=generator, device=mean.device)
