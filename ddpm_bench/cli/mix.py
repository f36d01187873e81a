"""The command `mix`: two checkpoints as one model."""

from pathlib import Path
from typing import Annotated

import typer

from ddpm_bench.cli.options import Json, Raw, plain_path, plain_text


def mix(
    ends: Annotated[Path, typer.Option(callback=plain_path, help="The checkpoint of the first and last steps.")],
    middle: Annotated[Path, typer.Option(callback=plain_path, help="The checkpoint of the steps between.")],
    out: Annotated[Path, typer.Option(help="The new folder, which --ckpt takes from then on.")],
    below: Annotated[
        int, typer.Option(min=1, help="So many steps at each end of the whole chain are those of --ends.")
    ] = 100,
    name: Annotated[
        str | None, typer.Option(callback=plain_text, help="The model's name in results [default: of both].")
    ] = None,
    raw: Raw = False,
    as_json: Json = False,
) -> None:
    """Make one model of two checkpoints that differ in their weights alone: one predicts at the ends of the chain, one between.

    The combined model of improved DDPM has the weights of L_vlb at its ends and those of L_hybrid between.

    Example: `ddpm-bench mix --ends runs/vlb --middle runs/hybrid --below 100 --out models/combined`
    """
    from ddpm_bench.cli.show import print_json
    from ddpm_bench.files import check_free
    from ddpm_bench.models.mix import mix as mixed
    from ddpm_bench.models.model import load_model, save_model
    from ddpm_bench.runtime.observer import say

    check_free(out)
    card, weights = mixed(load_model(ends, raw), load_model(middle, raw), below, name)
    card = save_model(out, card, weights)
    if as_json:
        print_json(card.model_dump(mode="json"))
    say(f"Written to '{out}'; give it to --ckpt" + (" with --raw" if card.weights == "raw" else ""))
