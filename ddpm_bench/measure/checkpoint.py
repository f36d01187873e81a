"""`ddpm-bench evaluate --ckpt`: a checkpoint -> samples -> scores and bound -> a row of the table of its folder."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import torch

from ddpm_bench.data import ImageData
from ddpm_bench.data.pictures import write_image_grid
from ddpm_bench.errors import UserError
from ddpm_bench.experiment.cell import PICTURED, Clock, data_info
from ddpm_bench.files import make_folder
from ddpm_bench.likelihood.estimate import Budget
from ddpm_bench.measure.bounds import measure, spread
from ddpm_bench.measure.sample_command import chain_of
from ddpm_bench.measure.samples import generate
from ddpm_bench.metrics.anchors import anchors
from ddpm_bench.metrics.extractors import Extractor, load_extractor
from ddpm_bench.metrics.fidelity import Scores, protocol, scores
from ddpm_bench.models.model import Model, load_model
from ddpm_bench.models.reference import reference_data
from ddpm_bench.networks.compiled import compile_network
from ddpm_bench.records.provenance import git_commit, hardware, versions
from ddpm_bench.records.record import BoundTerms, Checkpoint
from ddpm_bench.records.row import ModelInfo, Row, Setup, check_name, held_row, row_path, set_aside, write_row
from ddpm_bench.records.scored import read_scored
from ddpm_bench.runtime.batch import default_batch
from ddpm_bench.runtime.observer import say
from ddpm_bench.runtime.interrupt import NEVER, Stop

SAMPLES = {"inception": 50_000}
BOUND_IMAGES = {"inception": 10_000}
FEWER = 512
"""Samples and images of a bound by extractor: as published for Inception, and what a CPU can do for any other."""


@dataclass(frozen=True)
class Asked:
    """What was asked for; None leaves the choice to the checkpoint or the extractor. `evals` None: the exact bound."""

    ckpt: Path
    results: Path
    name: str | None = None
    raw: bool = False
    data: str | None = None
    data_name: str | None = None
    data_root: Path | None = None
    extractor: str = "embedded"
    inception_weights: Path | None = None
    allow_unverified: bool = False
    samples: int | None = None
    seed: int = 0
    steps: int | None = None
    test_reference: bool = False
    neighborhood: int = 3
    bound_images: int | None = None
    evals: int | None = 10
    decoder: Literal["exact", "paper"] = "exact"
    bootstrap: int = 200
    fresh: bool = False


@dataclass(frozen=True)
class Bench:
    """Where it is measured: none of this changes what is measured."""

    device: torch.device
    cache: Path
    batch: int | None = None
    stop: Stop = NEVER
    compiled: bool = False


def evaluate_checkpoint(asked: Asked, bench: Bench) -> Row:
    """The row of a checkpoint, measured unless `asked.results` holds it. An interrupted measurement goes on.

    UserError when the row there was measured otherwise. Raises Interrupted after saving, when `bench.stop` is set.
    """
    model = load_model(asked.ckpt, asked.raw)
    name = check_name(asked.name) if asked.name else default_name(model)
    data = reference_data(model, asked.data, asked.data_name, asked.data_root)
    extractor = load_extractor(
        asked.extractor, size=model.shape[-1], inception_weights=asked.inception_weights,
        allow_unverified=asked.allow_unverified, cache=bench.cache,
    )  # fmt: skip
    setup = make_setup(asked, model, data, extractor)
    if asked.fresh:
        set_aside(asked.results, name)
    if row := held_row(asked.results, name, setup):
        say(f"{name}: measured already on {row.created}; --fresh measures it again")
        return row
    make_folder(asked.results)
    row = _measure(name, setup, asked.results, model, data, extractor, bench)
    write_row(asked.results, row)
    return row


def default_name(model: Model) -> str:
    """The checkpoint's own name as a file's, and whether its weights are the raw ones."""
    return re.sub(r"[^\w.+-]+|^\W+", "-", model.name).strip("-") + ("-raw" if model.weights == "raw" else "")


def make_setup(asked: Asked, model: Model, data: ImageData, extractor: Extractor) -> Setup:
    """All that the numbers will depend on. UserError for what cannot be measured."""
    diffusion = model.diffusion
    T = diffusion.schedule.T
    images = BOUND_IMAGES.get(extractor.info.name, FEWER) if asked.bound_images is None else asked.bound_images
    if images == 1:
        raise UserError("--bound-images 1: a mean with an error needs 2 images or more, and 0 measures no bound.")
    evals = None if asked.evals is None or asked.evals >= T else asked.evals
    samples = asked.samples or SAMPLES.get(extractor.info.name, FEWER)
    # What these refuse is refused before anything long.
    protocol(samples, len(data.train), neighborhood=asked.neighborhood)
    if evals:
        Budget.of(evals)
    return Setup(
        model=ModelInfo(
            weights=model.weights,
            weights_sha256=model.identity["weights_sha256"],
            step=model.step,
            parameters=sum(parameter.numel() for parameter in model.network.parameters()),
            predicts=diffusion.parameterization.name,
            variance=diffusion.variance.name,
            schedule=model.process.schedule,
            T=T,
            identity=model.identity,
        ),
        data=data_info(data),
        extractor=extractor.info,
        samples=samples,
        seed=asked.seed,
        sampling_steps=chain_of(model, asked.steps).schedule.T,
        clip_x0=True,
        neighborhood=asked.neighborhood,
        test_reference=asked.test_reference,
        bootstrap=asked.bootstrap,
        bound_images=images,
        evals=evals,
        decoder=asked.decoder,
    )


def _measure(
    name: str, setup: Setup, results: Path, model: Model, data: ImageData, extractor: Extractor, bench: Bench
) -> Row:
    work = results / "work" / name
    clock = Clock(work / "wall-time.json")
    model.network.to(bench.device)
    if bench.compiled:
        compile_network(model.network)
    common: dict[str, Any] = {
        "test_reference": setup.test_reference, "neighborhood": setup.neighborhood, "device": bench.device,
        "cache": bench.cache, "stop": bench.stop,
    }  # fmt: skip
    with clock("anchors"):  # first, since they refuse a data set without enough test images
        scale = anchors(data, extractor, setup.samples, **common)
    with clock("sampling"):
        samples = generate(
            chain_of(model, setup.sampling_steps), model.network, shape=model.shape, count=setup.samples,
            seed=setup.seed, folder=work / "samples", clip_x0=setup.clip_x0, device=bench.device, batch=bench.batch,
            identity=model.identity | {"sampling_steps": setup.sampling_steps}, stop=bench.stop,
            title=f"{name}: sampling",
        )  # fmt: skip
    picture = row_path(results, name).with_suffix(".png")
    write_image_grid(picture, samples[:PICTURED])
    with clock("scoring"):
        common["test_reference"] = data.test.images if setup.test_reference else None
        common |= {"bootstrap": setup.bootstrap, "bootstrap_seed": setup.seed}
        found = _kept(work / "scores.json", setup, lambda: scores(samples, data.train.images, extractor, **common))
    with clock("bound"):
        bounds = _bounds(name, setup, work / "bound", model, data, bench)
    return Row(
        name=name,
        setup=setup,
        metrics=found.metrics | {f"bound_{bound.split}_bits_per_dim": bound.total for bound in bounds},
        quantiles=found.quantiles | {f"bound_{bound.split}_bits_per_dim": bound.quantiles for bound in bounds},
        bounds=bounds,
        anchors=scale,
        sample_grid=picture.name,
        wall_time_s=clock.seconds,
        versions=versions(),
        git_commit=git_commit(),
        hardware=hardware(bench.device, bench.compiled),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _kept(path: Path, setup: Setup, measure_them: Callable[[], Scores]) -> Checkpoint:
    """The scores that an interrupted run of the same setup left at `path`, or new ones, which are left there."""
    scored = read_scored(path, setup.model_dump(mode="json"))
    if not scored.checkpoints:
        found = measure_them()
        checkpoint = Checkpoint(step=setup.model.step or 0, metrics=found.metrics, quantiles=found.quantiles)
        scored = scored.having(checkpoints=(checkpoint,))
        scored.write(path)
    return scored.checkpoints[0]


def _bounds(
    name: str, setup: Setup, folder: Path, model: Model, data: ImageData, bench: Bench
) -> tuple[BoundTerms, ...]:
    """The bound of the model's whole chain on both splits, whatever number of steps it was sampled in."""
    splits = {"test": data.test.images, "train": data.train.images} if setup.bound_images else {}
    return tuple(
        measure(
            model.network, model.diffusion, spread(images, setup.bound_images), split=split, evals=setup.evals,
            seed=setup.seed, batch=bench.batch or default_batch(bench.device, model.shape[1]), device=bench.device,
            clip_x0=setup.clip_x0, decoder=setup.decoder, folder=folder,
            identity=model.identity | {"reference_sha256": data.sha256}, bootstrap=setup.bootstrap, stop=bench.stop,
            title=f"{name}: bound",
        )
        for split, images in splits.items()
    )  # fmt: skip
