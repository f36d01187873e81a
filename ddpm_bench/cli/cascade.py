"""The command `cascade`: a pipeline of checkpoints as one model."""

from pathlib import Path
from typing import Annotated

import typer

from ddpm_bench.cli.options import Json, Raw, plain_text


def cascade(
    models: Annotated[
        list[Path],
        typer.Argument(help="The checkpoints: first that of the smallest images, then those that enlarge them."),
    ],
    out: Annotated[Path, typer.Option(help="The new folder, which --ckpt takes from then on.")],
    augmentation: Annotated[
        list[int] | None,
        typer.Option(
            min=0,
            help="Level of the noise in the images that a super-resolution model is shown; once for each of them, in the order of the "
            "models [default: the checkpoints' own].",
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(callback=plain_text, help="The model's name in results [default: of sizes and last].")
    ] = None,
    raw: Raw = False,
    as_json: Json = False,
) -> None:
    """Make one model of several: the first draws small images, each of the others enlarges what the one before it draws.

    Each keeps the sampler and the steps of its checkpoint. `sample` and `evaluate` take it as any model.

    Example: `ddpm-bench cascade runs/8 runs/16 runs/32 --augmentation 10 --augmentation 10 --out models/cascade`
    """
    from ddpm_bench.cli.show import print_json
    from ddpm_bench.files import check_free
    from ddpm_bench.models.cascade import cascade as composed
    from ddpm_bench.models.model import load_model, save_model
    from ddpm_bench.runtime.observer import say

    check_free(out)
    card, weights = composed([load_model(path, raw) for path in models], augmentation or (), name)
    card = save_model(out, card, weights)
    if as_json:
        print_json(card.model_dump(mode="json"))
    say(f"Written to '{out}'; give it to --ckpt" + (" with --raw" if card.weights == "raw" else ""))
