"""Commands around one checkpoint: `sample`, `evaluate`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from ddpm_bench.cli.options import (
    CACHE,
    CKPT_HELP,
    DATA_HELP,
    Batch,
    Cache,
    Ckpt,
    Compile,
    DataName,
    DataRoot,
    Device,
    Extractor,
    Fresh,
    Json,
    Raw,
    Steps,
    Unverified,
    Weights,
    refuse,
)
from ddpm_bench.cli.show import print_json, print_table
from ddpm_bench.errors import UserError

ROWS = Path("results/checkpoints")


def sample(
    ckpt: Ckpt,
    out: Annotated[Path, typer.Option(help="A folder for PNG files, or a .npz file; for the pictures a .png file.")],
    samples: Annotated[
        int | None, typer.Option(min=1, help="How many images [default: 64, or 8 rows with --progressive].")
    ] = None,
    progressive: Annotated[
        bool, typer.Option("--progressive", help="Draw a picture: x_0 as predicted along each sample's chain.")
    ] = False,
    interpolate: Annotated[
        tuple[str, str] | None,
        typer.Option(metavar="A B", help="Draw a picture: from A to B, paths or numbers of test images."),
    ] = None,
    at: Annotated[
        list[int] | None,
        typer.Option(help="The t at which --interpolate mixes. Repeatable: a row each [default: the eighths of T]."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Sample i depends on the seed and on i alone.")] = 0,
    steps: Steps = None,
    raw: Raw = False,
    data: Annotated[
        str | None, typer.Option(help="Whose test images --interpolate numbers [default: what the checkpoint saw].")
    ] = None,
    data_root: DataRoot = None,
    device: Device = "auto",
    batch: Batch = None,
    as_json: Json = False,
) -> None:
    """Sample images from a checkpoint (moving average of the weights, no dropout), or draw its chains.

    Example: `ddpm-bench sample --ckpt runs/eps --samples 1000 --out samples.npz`

    Example: `ddpm-bench sample --ckpt runs/eps --progressive --out chain.png`

    Example: `ddpm-bench sample --ckpt runs/eps --interpolate 3 17 --at 500 --out between.png`
    """
    from ddpm_bench.measure.chain_pictures import draw_interpolation, draw_progressive
    from ddpm_bench.measure.sample_command import sample_checkpoint
    from ddpm_bench.records.provenance import choose_device
    from ddpm_bench.runtime.console import say
    from ddpm_bench.runtime.interrupt import Stop

    if interpolate:
        refuse({"--samples": samples, "--progressive": progressive}, "does not go with --interpolate.")
    else:
        refuse({"--at": at, "--data": data, "--data-root": data_root}, "goes with --interpolate alone.")
    chosen = choose_device(device)
    with Stop() as stop:
        if progressive:
            made = draw_progressive(ckpt, out, samples or 8, seed, steps, raw, chosen, batch, stop)
        elif interpolate:
            made = draw_interpolation(
                ckpt, out, interpolate, at, seed, steps, raw, data, data_root, chosen, batch, stop
            )
        else:
            made = sample_checkpoint(ckpt, out, samples or 64, seed, steps, raw, chosen, batch, stop)
    say(f"Made '{out}'")
    if as_json:
        print_json(made)


def evaluate(
    samples: Annotated[
        Path | None, typer.Option(help="Images to score: a folder of PNG, JPEG or WebP files, or an .npz file.")
    ] = None,
    ckpt: Annotated[Path | None, typer.Option(help=CKPT_HELP + " It becomes a row of a table.")] = None,
    name: Annotated[str | None, typer.Option(help="The name of the row [default: the checkpoint's].")] = None,
    results: Annotated[Path | None, typer.Option(help=f"Folder of the table [default: {ROWS}].")] = None,
    data: Annotated[
        str | None, typer.Option(help=DATA_HELP + " [default: embedded; for --ckpt what it was trained on].")
    ] = None,
    data_name: DataName = None,
    data_root: DataRoot = None,
    size: Annotated[
        int | None, typer.Option(help="Side in pixels of the reference images [default: that of the samples].")
    ] = None,
    extractor: Extractor = "embedded",
    inception_weights: Weights = None,
    allow_unverified_weights: Unverified = False,
    test_reference: Annotated[
        bool, typer.Option("--test-reference", help="Also score against the test split.")
    ] = False,
    neighborhood: Annotated[int, typer.Option(min=1, help="k of precision and recall.")] = 3,
    count: Annotated[
        int | None, typer.Option(min=2, help="Samples of --ckpt [default: 50000 for inception, 512 for any other].")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the samples and of the bound [default: 0].")] = None,
    steps: Steps = None,
    raw: Raw = False,
    evals: Annotated[
        int | None, typer.Option(min=5, help="Network calls an image for the estimate of the bound [default: 10].")
    ] = None,
    exact: Annotated[bool, typer.Option("--exact", help="The exact bound instead: T network calls an image.")] = False,
    bound_images: Annotated[
        int | None,
        typer.Option(
            min=0, help="Images of each split for the bound [default: 10000 for inception, 512 for any other]; 0: none."
        ),
    ] = None,
    decoder: Annotated[
        Literal["exact", "paper"] | None, typer.Option(help="Of the bound; paper is the release's [default: exact].")
    ] = None,
    fresh: Fresh = False,
    device: Device = "auto",
    batch: Batch = None,
    compiled: Compile = False,
    cache: Cache = CACHE,
    as_json: Json = False,
) -> None:
    """Score anyone's images against a data set, or a checkpoint: samples, scores, bits/dim, a row of a table.

    Beside anchors that give the distances a scale. With --ckpt, the same command goes on where it was interrupted.

    Example: `ddpm-bench evaluate --samples samples.npz --data embedded --extractor embedded`

    Example: `ddpm-bench evaluate --ckpt runs/eps --results results/checkpoints`
    """
    of_ckpt = {
        "--name": name, "--results": results, "--count": count, "--seed": seed, "--steps": steps, "--raw": raw,
        "--evals": evals, "--exact": exact, "--bound-images": bound_images, "--decoder": decoder, "--fresh": fresh,
        "--batch": batch, "--compile": compiled,
    }  # fmt: skip
    if exact and evals:
        raise UserError("Give either --evals, for an estimate, or --exact.")
    if (samples is None) == (ckpt is None):
        raise UserError("Give either --samples, images to score, or --ckpt, a checkpoint to evaluate.")
    refuse(of_ckpt if samples else {"--size": size}, f"does not go with {'--samples' if samples else '--ckpt'}.")

    from ddpm_bench.measure.checkpoint import Asked, Bench, evaluate_checkpoint
    from ddpm_bench.measure.images import evaluate_images, evaluation_table
    from ddpm_bench.records.provenance import choose_device
    from ddpm_bench.records.row import read_rows
    from ddpm_bench.report.checkpoint_rows import make_tables, write_tables
    from ddpm_bench.report.writers.terminal_tables import rows_at_terminal
    from ddpm_bench.runtime.console import say
    from ddpm_bench.runtime.interrupt import Stop

    chosen = choose_device(device, compiled)
    if samples:
        result = evaluate_images(
            samples, data or "embedded", data_name, data_root, size, extractor, inception_weights,
            allow_unverified_weights, test_reference, neighborhood, chosen, cache,
        )  # fmt: skip
        return print_json(result.as_json()) if as_json else print_table(evaluation_table(result))
    folder = results or ROWS
    asked = Asked(
        ckpt, folder, name, raw, data, data_name, data_root, extractor, inception_weights, allow_unverified_weights,
        samples=count, seed=seed or 0, steps=steps, test_reference=test_reference, neighborhood=neighborhood,
        bound_images=bound_images, evals=None if exact else evals or 10, decoder=decoder or "exact", fresh=fresh,
    )  # fmt: skip
    with Stop() as stop:
        row = evaluate_checkpoint(asked, Bench(chosen, cache, batch, stop, compiled))
    rows = read_rows(folder)
    write_tables(folder, rows)
    if as_json:
        print_json(row.model_dump(mode="json"))
    else:
        print_table(rows_at_terminal(make_tables(rows)))
    say(f"Row '{row.name}' and the tables are in '{folder}'")
