"""`ddpm-bench extractor ...`: feature extractors of one's own."""

from pathlib import Path
from typing import Annotated

import typer

from ddpm_bench.cli.options import Data, DataRoot, Device, Json, Resizing, Seed, numbers
from ddpm_bench.cli.show import print_json

app = typer.Typer(help="Feature extractors for data that Inception does not fit.", no_args_is_help=True)


@app.command("train")
def extractor_train(
    out: Annotated[Path, typer.Option(help="The extractor's .safetensors file; a .json card is written beside it.")],
    name: Annotated[str, typer.Option(help="Its name: scores will be headed FD (name).")],
    data: Data = "embedded",
    data_root: DataRoot = None,
    resize: Resizing = None,
    sizes: Annotated[str, typer.Option(help="Sides in pixels that it is trained for, separated by commas.")] = "16,32",
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training images.")] = 6,
    seed: Seed = 0,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Train a small classifier on a labelled data set, to score generated images with its features.

    Example: `ddpm-bench extractor train --data folder:photos --name photos --out photos.safetensors --sizes 32`
    """
    from ddpm_bench.metrics.embedded import ExtractorTraining, train_extractor
    from ddpm_bench.runtime.device import choose_device
    from ddpm_bench.runtime.interrupt import Stop
    from ddpm_bench.runtime.runtime import Runtime

    sides = tuple(numbers("--sizes", sizes))
    training = ExtractorTraining(name=name, sizes=sides, resize=resize, epochs=epochs, seed=seed)
    with Stop():
        card = train_extractor(data or "embedded", out, training, Runtime(choose_device(device)), root=data_root)
    if as_json:
        print_json(card.model_dump(mode="json"))
