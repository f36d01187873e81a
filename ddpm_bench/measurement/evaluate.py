"""`ddpm-bench evaluate --ckpt`: a checkpoint measured as a row of the table of its folder."""

import re
from pathlib import Path

from ddpm_bench.files import make_folder
from ddpm_bench.likelihood.estimate import Budget
from ddpm_bench.measurement.kept import mention_older, work_beside
from ddpm_bench.measurement.measure import Task, check_task, measure
from ddpm_bench.models.model import Model
from ddpm_bench.records.fields import networks_in
from ddpm_bench.records.protocol import protocol
from ddpm_bench.records.row import ModelInfo, Row, Setup, check_name, held_row, row_path, set_aside, write_row
from ddpm_bench.runtime.observer import about, say
from ddpm_bench.runtime.runtime import Runtime

SAMPLES = {"inception": 50_000}
BOUND_IMAGES = {"inception": 10_000}
OF_ALL_ROWS = "+bounds"
"""Among what is kept on the way to rows, of which none can be called so: bounds do not depend on how samples are drawn."""
FEWER = 512
"""Samples and images of a bound by extractor: as published for Inception, and what a CPU can do for any other."""


def evaluate(
    model: Model, task: Task, runtime: Runtime, results: Path, name: str | None = None, fresh: bool = False,
    remarks: tuple[str, ...] = (),
) -> Row:  # fmt: skip
    """The row `name` of the folder `results`, measured unless it is there. An interrupted measurement goes on.

    fresh: the row that is there is set aside, once all that can be refused was not. remarks: what else is to be said of it.
    UserError when the row there was measured otherwise. Raises Interrupted after saving.
    """
    name = row_name(model, name)
    setup = setup_of(model, task)
    setup = setup.model_copy(update={"sampling_remarks": (*setup.sampling_remarks, *remarks)})
    if fresh:
        set_aside(results, name)
    if row := held_row(results, name, setup, runtime.precision):
        lowered = networks_in(row.hardware)
        how = "" if lowered == runtime.arithmetic["precision"] else f", in {lowered}"
        say(f"{name}: measured already on {row.created}{how}; --fresh measures it again")
        return row
    make_folder(results)
    with about(name):
        mention_older(work_beside(row_path(results, name)))
        shared = None if fresh else results / "work" / OF_ALL_ROWS
        found = measure(model, task, runtime, row_path(results, name), shared)
    row = Row(name=name, setup=setup, **{field: getattr(found, field) for field in type(found).model_fields})
    write_row(results, row)
    return row


def row_name(model: Model, name: str | None) -> str:
    """`name`, or the model's own as a file's, and whether its weights are the raw ones. UserError for one that is none."""
    if name:
        return check_name(name)
    return re.sub(r"[^\w.+-]+|^\W+", "-", model.name).strip("-") + ("-raw" if model.weights == "raw" else "")


def setup_of(model: Model, task: Task) -> Setup:
    """All that the numbers will depend on. UserError for what cannot be measured."""
    scoring, sampling, diffusion = task.scoring, task.sampling, model.diffusion
    chain = model.chain(sampling)
    # What these refuse is refused before anything long.
    check_task(model, task)
    protocol(sampling.samples, len(task.data.train), scoring.neighborhood, scoring.density_k)
    evals = task.bound_method(model).evals_for(model)
    if evals is not None:
        Budget.of(evals)
    return Setup(
        model=ModelInfo(
            weights=model.weights,
            weights_sha256=model.weights_sha256,
            step=model.step,
            parameters=model.parameters,
            predicts=diffusion.parameterization.name,
            variance=diffusion.variance.name,
            schedule=model.process.schedule,
            T=model.T,
            identity=model.identity,
        ),
        data=task.info,
        extractor=task.extractor.info,
        samples=sampling.samples,
        seed=task.seed,
        sampler=sampling.sampler,
        sampler_options=model.sampling_options(sampling),
        sampling_steps=chain.T,
        network_calls=chain.network_calls,
        sampling_remarks=model.sampling_remarks(sampling),
        spacing=sampling.spacing_of(model.T),
        clip_x0=sampling.clip_x0,
        neighborhood=scoring.neighborhood,
        quality=scoring.quality,
        density_neighborhood=scoring.density_neighborhood,
        test_reference=scoring.test_reference,
        bootstrap=scoring.bootstrap,
        bound_images=scoring.bound_images,
        evals=evals,
        decoder=scoring.decoder,
        ode_images=scoring.ode_images,
        ode_draws=scoring.ode_draws,
    )
