"""The command `evaluate`: anyone's images scored, or a checkpoint as a row of a table."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ddpm_bench.cli.options import (
    CACHE,
    CKPT_HELP,
    DATA_HELP,
    Batch,
    Cache,
    Compile,
    DataName,
    DataRoot,
    Device,
    Extractor,
    Fresh,
    Gpus,
    Json,
    Precision,
    Raw,
    Resizing,
    Steps,
    Unverified,
    Weights,
    plain_path,
    plain_text,
    refuse,
    words,
)
from ddpm_bench.cli.sampling_options import UNASKED, SamplingOptions, with_sampling_options
from ddpm_bench.cli.show import print_json, print_table
from ddpm_bench.config.limits import LARGEST_SEED
from ddpm_bench.errors import UserError

if TYPE_CHECKING:
    from ddpm_bench.config.settings import ScoringSettings
    from ddpm_bench.data import ImageData
    from ddpm_bench.data.given import GivenImages
    from ddpm_bench.measurement.measure import Task
    from ddpm_bench.metrics.extractors import Extractor as Features
    from ddpm_bench.metrics.statistics import GivenStatistics
    from ddpm_bench.models.model import Model
    from ddpm_bench.runtime.runtime import Runtime

FOLDER = Path("results/checkpoints")


@with_sampling_options
def evaluate(
    samples: Annotated[
        Path | None, typer.Option(help="Images to score: a folder of PNG, JPEG or WebP files, or an .npz file.")
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="The array of --samples' .npz file [default: the only one of images].")
    ] = None,
    ckpt: Annotated[
        Path | None, typer.Option(callback=plain_path, help=CKPT_HELP + " It becomes a row of a table.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The name of the row [default: the checkpoint's].")] = None,
    results: Annotated[Path | None, typer.Option(help=f"Folder of the table [default: {FOLDER}].")] = None,
    reference: Annotated[
        Path | None,
        typer.Option(
            callback=plain_path,
            help="Compare --samples with this instead of a data set: images (a folder or .npz), or an .npz of statistics, "
            "mu and sigma.",
        ),
    ] = None,
    reference_key: Annotated[
        str | None, typer.Option(help="The array of --reference's .npz file [default: the only one of images].")
    ] = None,
    recursive: Annotated[
        bool,
        typer.Option("--recursive", help="Take the images of --samples and --reference at any depth of the folders."),
    ] = False,
    data: Annotated[
        str | None,
        typer.Option(callback=plain_text, help=DATA_HELP + " [default: embedded; for --ckpt what it was trained on]"),
    ] = None,
    data_name: DataName = None,
    data_root: DataRoot = None,
    resize: Resizing = None,
    extractor: Extractor = None,
    inception_weights: Weights = None,
    allow_unverified_weights: Unverified = False,
    test_reference: Annotated[
        bool, typer.Option("--test-reference", help="Also score against the test split.")
    ] = False,
    neighborhood: Annotated[int | None, typer.Option(min=1, help="k of precision and recall [default: 3].")] = None,
    quality: Annotated[
        str | None,
        typer.Option(
            help="What is measured beside the usual, separated by commas: density (and coverage), copies (of training images), "
            "spatial (sFID with inception), mmd (CMMD with clip) [default: none; mmd with clip]."
        ),
    ] = None,
    density_neighborhood: Annotated[
        int | None, typer.Option(min=1, help="k of density and coverage [default: 5].")
    ] = None,
    count: Annotated[
        int | None, typer.Option(min=2, help="Samples of --ckpt [default: 50000 for inception, 512 for any other].")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, max=LARGEST_SEED, help="Seed of the samples and of the bound [default: 0].")
    ] = None,
    steps: Steps = None,
    sampling: SamplingOptions = UNASKED,
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
    ode_images: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Test images for the likelihood by the probability flow ODE, which is no bound [default: 0, none].",
        ),
    ] = None,
    fresh: Fresh = False,
    device: Device = "auto",
    gpus: Gpus = None,
    batch: Batch = None,
    precision: Precision = None,
    compiled: Compile = False,
    cache: Cache = CACHE,
    as_json: Json = False,
) -> None:
    """Score anyone's images against a data set, or a checkpoint: samples, scores, bits/dim, a row of a table.

    Beside anchors that give the distances a scale. With --ckpt, the same command goes on where it was interrupted.

    Example: `ddpm-bench evaluate --samples samples.npz --data embedded --resize average --extractor embedded`

    Example: `ddpm-bench evaluate --samples A --reference B`

    Example: `ddpm-bench evaluate --ckpt runs/eps --results results/checkpoints`
    """
    of_ckpt = {
        "--name": name, "--results": results, "--count": count, "--seed": seed, "--steps": steps, **sampling.given, "--raw": raw,
        "--evals": evals, "--exact": exact, "--bound-images": bound_images, "--decoder": decoder,
        "--ode-images": ode_images, "--fresh": fresh,
        "--batch": batch, "--precision": precision, "--compile": compiled,
    }  # fmt: skip
    if exact and evals:
        raise UserError("Give either --evals, for an estimate, or --exact.")
    if (samples is None) == (ckpt is None):
        raise UserError("Give either --samples, images to score, or --ckpt, a checkpoint to evaluate.")
    refuse(of_ckpt if samples else {"--key": key}, f"does not go with {'--samples' if samples else '--ckpt'}.")
    if ckpt:
        refuse(
            {"--reference": reference, "--reference-key": reference_key, "--recursive": recursive},
            "does not go with --ckpt. Draw samples of it with `ddpm-bench sample`, and give them with --samples.",
        )
    if reference:
        of_data = {"--data": data, "--data-name": data_name, "--data-root": data_root}
        refuse(of_data | {"--test-reference": test_reference}, "does not go with --reference.")
    else:
        refuse({"--reference-key": reference_key}, "goes with --reference alone.")
    if recursive and not any(path and path.is_dir() for path in (samples, reference)):
        raise UserError("--recursive is for folders, and neither --samples nor --reference is one. Leave it out.")

    from ddpm_bench.cli.setup import asked_of, device_runtime, for_model, sampling_wish, section
    from ddpm_bench.config.settings import ScoringSettings
    from ddpm_bench.measurement.evaluate import BOUND_IMAGES, FEWER, SAMPLES, row_name
    from ddpm_bench.measurement.measure import Task
    from ddpm_bench.metrics.extractors import choose_extractor, load_extractor
    from ddpm_bench.models.model import load_model
    from ddpm_bench.models.reference import reference_data

    runtime = device_runtime(device, cache, batch, compiled, precision=precision)
    # What is compared is read and refused before the extractor, whose weights may have to be fetched.
    if samples:
        wanted = {"source": data or "embedded", "name": data_name, "root": data_root, "resize": resize}
        of_images = {
            "--neighborhood": neighborhood, "--quality": quality, "--density-neighborhood": density_neighborhood
        }  # fmt: skip
        given, against = _compared(samples, key, reference, reference_key, recursive, wanted, extractor, of_images)
        images = given.images
    else:
        assert ckpt is not None  # one of the two was given
        folder, model = results or FOLDER, load_model(ckpt, raw)
        row = row_name(model, name)  # refused before anything long
        of_model = reference_data(model, data, data_name, data_root, resize)
        images = of_model.train.images
    extractor = extractor or choose_extractor("embedded", images, inception_weights, cache)
    asked = words(quality or ("mmd" if extractor.startswith("clip:") else ""))
    if density_neighborhood and "density" not in asked:
        raise UserError("--density-neighborhood is the k of density and coverage; add --quality density.")
    scored = {
        "extractor": extractor, "test_reference": test_reference, "neighborhood": neighborhood or 3,
        "quality": asked, "density_neighborhood": density_neighborhood or 5, "bound_images": bound_images or 0,
        "bound_evals": None if exact else evals or 10, "decoder": decoder or "exact",
        "ode_images": ode_images or 0, "neighbours": 0,
    }  # fmt: skip
    scoring = section(ScoringSettings, scored)
    features = load_extractor(
        extractor, inception_weights=inception_weights, allow_unverified=allow_unverified_weights, cache=cache
    )
    features.check_size(*images.shape[2:])
    if samples:
        return _of_images(given, against, features, scoring, runtime, gpus, as_json)
    if bound_images is None:
        bound_images = BOUND_IMAGES.get(features.info.name, FEWER)
    scoring = scoring.model_copy(update={"bound_images": bound_images})
    runtime = for_model(runtime, precision, model, folder)
    wish = sampling_wish(model, count or SAMPLES.get(features.info.name, FEWER), asked_of(sampling) | {"steps": steps})
    _of_model(model, Task(of_model, features, wish, scoring, seed or 0), runtime, gpus, folder, row, fresh, as_json)


def _compared(
    samples: Path, key: str | None, reference: Path | None, reference_key: str | None, recursive: bool,
    wanted: Mapping[str, object], extractor: str | None, of_images: Mapping[str, object],
) -> "tuple[GivenImages, ImageData | GivenImages | GivenStatistics]":  # fmt: skip
    """The samples and what they are compared with: `reference`, or the data set `wanted`, at the samples' size.

    of_images: options that take the reference's images, by name.
    """
    from ddpm_bench.cli.setup import section
    from ddpm_bench.config.settings import DataSettings
    from ddpm_bench.data import load_data
    from ddpm_bench.data.given import read_given
    from ddpm_bench.measurement.images import check_alike
    from ddpm_bench.metrics.statistics import read_statistics

    settings = section(DataSettings, wanted)
    if reference and not reference_key and (statistics := read_statistics(reference)):
        refuse(
            {**of_images, "--resize": settings.resize},
            f"is not used: '{reference}' holds statistics, which give a distance alone.",
        )
        if extractor is None:
            raise UserError(
                f"'{reference}' holds statistics of {len(statistics.mean):,} features, and not whose. Name the extractor "
                "that made them: --extractor inception (2,048 features, if pytorch-fid or OpenAI made them), or another."
            )
        return read_given(samples, recursive, key), statistics
    given = read_given(samples, recursive, key)
    against: ImageData | GivenImages
    if reference:
        against = read_given(reference, recursive, reference_key).fitted(given.size, settings.resize)
    else:
        against = load_data(settings, given.size)
    check_alike(given, against)
    return given, against


def _of_images(
    samples: "GivenImages", reference: "ImageData | GivenImages | GivenStatistics", features: "Features",
    scoring: "ScoringSettings", runtime: "Runtime", gpus: int | None, as_json: bool,
) -> None:  # fmt: skip
    """Score `samples` against what they are to be compared with, and print that."""
    from ddpm_bench.cli.setup import on_gpus
    from ddpm_bench.measurement.images import evaluate_images, evaluation_table
    from ddpm_bench.runtime.interrupt import Stop

    scoring = scoring.model_copy(update={"bootstrap": 0, "bound_images": 0})
    with Stop(), on_gpus(gpus, runtime.device):
        result = evaluate_images(samples, reference, features, scoring, runtime)
    if as_json:
        print_json(result.as_json())
    else:
        print_table(evaluation_table(result))


def _of_model(
    model: "Model", task: "Task", runtime: "Runtime", gpus: int | None, folder: Path, name: str, fresh: bool, as_json: bool
) -> None:  # fmt: skip
    """Measure a row of the table of `folder`, render the table, and print it."""
    from ddpm_bench.cli.setup import on_gpus
    from ddpm_bench.measurement.evaluate import evaluate as measure_row
    from ddpm_bench.measurement.kept import work_beside
    from ddpm_bench.records.row import read_rows, row_path
    from ddpm_bench.report.checkpoint_rows import make_tables, write_tables
    from ddpm_bench.report.writers.terminal_tables import rows_at_terminal
    from ddpm_bench.runtime.interrupt import Stop
    from ddpm_bench.runtime.observer import say
    from ddpm_bench.runtime.owner import RENDERING_S, owned

    with Stop(), on_gpus(gpus, runtime.device):
        with owned(work_beside(row_path(folder, name))):
            row = measure_row(model, task, runtime, folder, name, fresh)
        with owned(folder, RENDERING_S):
            rows = read_rows(folder)
            write_tables(folder, rows)
    if as_json:
        print_json(row.as_json())
    else:
        print_table(rows_at_terminal(make_tables(rows)))
    say(f"Row '{row.name}' and the tables are in '{folder}'")
