"""`ddpm-bench autoencoder ...`: what models of latents are trained and sampled through."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from ddpm_bench.cli.options import (
    CACHE,
    Cache,
    Data,
    DataName,
    DataRoot,
    Device,
    Extractor,
    Json,
    Resizing,
    Seed,
    Unverified,
    Weights,
)
from ddpm_bench.cli.show import print_json

app = typer.Typer(help="Autoencoders, whose latents diffusion.codec makes a model's x_0.", no_args_is_help=True)


@app.command("train")
def autoencoder_train(
    out: Annotated[Path, typer.Option(help="The autoencoder's .safetensors file; a .json card is written beside it.")],
    data: Data = "embedded",
    data_name: DataName = None,
    data_root: DataRoot = None,
    resize: Resizing = None,
    size: Annotated[int, typer.Option(help="The images' side in pixels.")] = 32,
    channels: Annotated[int, typer.Option(min=1, help="Of latents.")] = 4,
    factor: Annotated[
        Literal["2", "4", "8"], typer.Option(help="Pixels a side of an image for one of its latents.")
    ] = "2",
    base: Annotated[int, typer.Option(min=2, help="Channels of the first level; the others have twice as many.")] = 32,
    blocks: Annotated[int, typer.Option(min=1, help="Residual blocks a level.")] = 1,
    groups: Annotated[int, typer.Option(min=1, help="Of every group normalisation.")] = 8,
    loss: Annotated[
        Literal["L1", "L2"], typer.Option(help="Of pixels. There is no LPIPS and no discriminator beside it.")
    ] = "L1",
    kl_weight: Annotated[float, typer.Option(min=0, help="Of the latents' KL to a standard normal.")] = 1e-6,
    steps: Annotated[int, typer.Option(min=1, help="Training steps.")] = 1000,
    batch: Annotated[int, typer.Option(min=2, help="Images a step.")] = 64,
    learning_rate: Annotated[float, typer.Option(help="The highest of its one cycle.")] = 2e-3,
    seed: Seed = 0,
    extractor: Extractor = None,
    inception_weights: Weights = None,
    allow_unverified_weights: Unverified = False,
    cache: Cache = CACHE,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Train a KL-regularised autoencoder, and score how it brings test images back.

    Interrupted, it leaves nothing. Its scale factor is measured on the first batch.

    Example: `ddpm-bench autoencoder train --data embedded --resize average --size 16 --factor 2 --out kl-f2.safetensors`
    """
    from ddpm_bench.cli.setup import device_runtime, section
    from ddpm_bench.config.autoencoders import MULTIPLIERS, AutoencoderSettings, AutoencoderTraining
    from ddpm_bench.config.settings import DataSettings
    from ddpm_bench.data import load_data
    from ddpm_bench.files import check_weights_file
    from ddpm_bench.metrics.extractors import choose_extractor, load_extractor
    from ddpm_bench.networks.kept import write_network
    from ddpm_bench.runtime.interrupt import Stop
    from ddpm_bench.runtime.observer import say
    from ddpm_bench.training.autoencoder import train_autoencoder

    check_weights_file(out, "An autoencoder")
    network = section(
        AutoencoderSettings,
        {
            "channels": channels,
            "base": base,
            "blocks": blocks,
            "groups": groups,
            "multipliers": MULTIPLIERS[int(factor)],
        },
    )
    network.check()
    wish = {"network": network, "loss": loss, "kl_weight": kl_weight, "steps": steps, "batch": batch,
            "learning_rate": learning_rate, "seed": seed}  # fmt: skip
    training, runtime = section(AutoencoderTraining, wish), device_runtime(device, cache)
    source = {"source": data or "embedded", "name": data_name, "size": size, "resize": resize, "root": data_root}
    with Stop():
        images = load_data(section(DataSettings, source))
        chosen = extractor or choose_extractor("embedded", images.train.images, inception_weights, cache)
        measuring = load_extractor(
            chosen, size=size, inception_weights=inception_weights, allow_unverified=allow_unverified_weights,
            cache=cache,
        )  # fmt: skip
        content, card = train_autoencoder(images, training, runtime, measuring)
        write_network(out, content, card)
    if as_json:
        return print_json(card.model_dump(mode="json"))
    quality = card.reconstruction
    say(
        f"'{out}': f = {card.factor}, {card.parameters:,} parameters, scale {card.scale:.4g}; {quality.images:,} test images come back "
        f"with an error of {quality.absolute_error:.2f} levels, PSNR {quality.psnr:.2f} dB, {quality.distance} {quality.fd:.2f}. "
        f"Train a model of its latents with --set diffusion.codec=autoencoder:{out}"
    )


@app.command("add")
def autoencoder_add(
    source: Annotated[
        Path, typer.Argument(help="A file of `autoencoder train`, or a folder of diffusers' AutoencoderKL.")
    ],
    as_json: Json = False,
) -> None:
    """Put an autoencoder where the checkpoints of its latents find it on this machine.

    Training does that itself; it is for checkpoints that come from elsewhere, which name the SHA-256 that they need.

    Example: `ddpm-bench autoencoder add kl-f2.safetensors`
    """
    from ddpm_bench.data.autoencoders import latents_of
    from ddpm_bench.models.interop.autoencoder_kl import keep_given

    sha256 = keep_given(source.expanduser())
    codec = latents_of(sha256, "autoencoder")
    found = {"sha256": sha256, "factor": codec.factor, "channels": codec.channels, "scale": codec.scale}
    if as_json:
        return print_json(found)
    typer.echo(f"{sha256}: f = {codec.factor}, {codec.channels} channels, scale {codec.scale:g}")
