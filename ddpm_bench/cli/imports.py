"""The command `import`: a checkpoint of other people into a folder that `--ckpt` takes."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from ddpm_bench.cli.options import Json, plain_text


def import_(
    source: Annotated[str, typer.Argument(help="A .pt or .safetensors file, a diffusers folder, or a hub id.")],
    out: Annotated[Path, typer.Option(help="The new folder, which --ckpt takes from then on.")],
    format: Annotated[
        str | None, typer.Option(help="diffusers, openai, pytorch-ddpm, ddim or dit [default: recognised].")
    ] = None,
    flags: Annotated[
        str | None,
        typer.Option(
            help='openai: the flags of its training, e.g. "--image_size 32 --num_heads 4"; dit: "--num_heads 6".'
        ),
    ] = None,
    weights: Annotated[
        Literal["ema", "raw", "unknown"] | None, typer.Option(help="What they are, where the file does not tell.")
    ] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Take raw weights, not their moving average.")] = False,
    key: Annotated[
        str | None, typer.Option(help="The entry of the file that holds the weights, where it holds several.")
    ] = None,
    size: Annotated[int | None, typer.Option(min=1, help="The images' side, where the source does not tell.")] = None,
    name: Annotated[
        str | None, typer.Option(callback=plain_text, help="The model's name in results [default: that of the source].")
    ] = None,
    schedule: Annotated[
        str | None, typer.Option(help="linear, quadratic or cosine, where the source does not tell.")
    ] = None,
    T: Annotated[int | None, typer.Option("--T", min=2, help="Steps of the chain.")] = None,
    beta_1: Annotated[float | None, typer.Option("--beta-1", help="The first beta [default: 0.0001].")] = None,
    beta_T: Annotated[float | None, typer.Option("--beta-T", help="The last beta [default: 0.02].")] = None,
    variance: Annotated[
        str | None, typer.Option(help="fixed-beta, fixed-beta-tilde, learned or learned-range.")
    ] = None,
    predicts: Annotated[str | None, typer.Option(help="eps, x0 or mu: what the network predicts.")] = None,
    codec: Annotated[
        str | None, typer.Option(help="dit: what makes x_0 of images, where that is an autoencoder's codes.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Convert a checkpoint of diffusers, OpenAI, w86763777/pytorch-ddpm, ermongroup/ddim, or facebookresearch/DiT.

    OpenAI's are of improved- or guided-diffusion. The format of ermongroup/ddim is also that of Ho et al.'s own weights, as
    pesser/pytorch_diffusion converted them. What it predicts, its schedule, variance and time indexing are stored with it, and
    what was assumed or not used. Nothing in a file is executed.

    Example: `ddpm-bench import cifar10_uncond_50M_500K.pt --out models/improved`
    """
    from ddpm_bench.cli.show import print_json
    from ddpm_bench.models.interop import UserSays, describe, import_checkpoint
    from ddpm_bench.runtime.observer import say

    process = {
        "schedule": schedule, "T": T, "beta_1": beta_1, "beta_T": beta_T,
        "variance": variance, "parameterization": predicts, "codec": codec,
    }  # fmt: skip
    asked = UserSays(
        flags, weights, raw, key, size, {each: value for each, value in process.items() if value is not None}
    )
    card = import_checkpoint(source, out, asked, format, name)
    if as_json:
        print_json(card.model_dump(mode="json"))
    else:
        typer.echo("\n".join(describe(card)))
    say(f"Written to '{out}'; give it to --ckpt" + (" with --raw" if card.weights == "raw" else ""))
