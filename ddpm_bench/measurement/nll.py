"""`ddpm-bench nll`: the variational bound of a checkpoint on images, with its parts and its errors."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from rich.table import Table

from ddpm_bench.config.grid import load_coding
from ddpm_bench.data.images import ImageData
from ddpm_bench.files import write_json, write_text
from ddpm_bench.measurement.bounds import BoundMethod, SplitName, measure_bound
from ddpm_bench.measurement.measure import data_info
from ddpm_bench.models.card import KINDS, Kind
from ddpm_bench.models.model import Model
from ddpm_bench.records.provenance import git_commit, hardware, versions
from ddpm_bench.records.record import BoundTerms, DataInfo, Part
from ddpm_bench.report.blocks import Heading, Image, Paragraph
from ddpm_bench.report.figures.progressive_coding import plot_progressive
from ddpm_bench.report.progressive_coding import Coded, coded, split_in_words
from ddpm_bench.report.sections.bounds import code_table
from ddpm_bench.report.writers.markdown import to_markdown
from ddpm_bench.runtime.observer import say
from ddpm_bench.runtime.runtime import Runtime

PUBLISHED_CODE = "ddpm-table4"


class Gap(Part):
    """Bound of the test images minus that of the training images, in bits/dim, with its standard error."""

    value: float
    standard_error: float


class Nll(Part):
    """The bound of one checkpoint, and what it depends on."""

    checkpoint: str
    weights: Kind
    weights_sha256: str
    step: int | None
    parameters: int
    predicts: str
    variance: str
    T: int
    data: DataInfo
    seed: int
    bounds: tuple[BoundTerms, ...]
    gap: Gap | None
    versions: dict[str, str]
    git_commit: str | None
    hardware: dict[str, str | int | float | bool | None]


def measure_nll(
    model: Model, data: ImageData, splits: Sequence[SplitName], method: BoundMethod, runtime: Runtime, folder: Path
) -> Nll:
    """The bound of each of the splits. Finished pieces stay in `folder`, so an interrupted call goes on and a repeated one
    answers at once."""
    if method.evals is not None and method.exact_for(model):
        say(f"The chain has {model.T} steps, no more than --evals {method.evals}: every one is evaluated.")
    bounds = tuple(measure_bound(model, data, split, method, runtime, folder) for split in splits)
    return Nll(
        checkpoint=model.name,
        weights=model.weights,
        weights_sha256=model.weights_sha256,
        step=model.step,
        parameters=model.parameters,
        predicts=model.diffusion.parameterization.name,
        variance=model.diffusion.variance.name,
        T=model.T,
        data=data_info(data),
        seed=method.seed,
        bounds=bounds,
        gap=gap({bound.split: bound for bound in bounds}),
        versions=versions(),
        git_commit=git_commit(),
        hardware=hardware(runtime.device, runtime.compiled),
    )


def gap(bounds: dict[str, BoundTerms]) -> Gap | None:
    """Test minus training, where both were measured; the two are of different images, so their errors add up."""
    if len(bounds) < 2:
        return None
    test, train = bounds["test"], bounds["train"]
    return Gap(value=test.total - train.total, standard_error=(test.standard_error**2 + train.standard_error**2) ** 0.5)


def code_of(result: Nll) -> Coded:
    """The progressive code that an exact measurement stands for: of the test images, or of the only split measured."""
    bounds = {bound.split: bound for bound in result.bounds}
    bound = bounds.get("test", result.bounds[0])
    return coded(f"{result.checkpoint}, {bound.images:,} {bound.split} images of {result.data.name}", [bound])


def write_progressive(result: Nll, out: Path) -> None:
    """nll.json, the table of progressive coding as progressive.md, and its figure as PNG and PDF, in the folder `out`."""
    code, published = code_of(result), load_coding(PUBLISHED_CODE)
    write_json(out / "nll.json", result.as_json())
    plot_progressive(out / "progressive.png", [code], published)
    page = [
        Heading(1, f"Progressive coding: {code.label}"),
        Paragraph(split_in_words(code, published)),
        code_table(code, published),
        Paragraph(Image(PurePosixPath("progressive.png"), "Progressive coding")),
        Paragraph(
            f"Published: {published.source}. It is another model on CIFAR-10, so the two columns are not comparable "
            "unless this is that model and that data."
        ),
    ]
    write_text(out / "progressive.md", to_markdown(page))


def nll_table(result: Nll) -> Table:
    """A row a split: the parts, the total, and the two errors apart."""
    first = result.bounds[0]
    how = "every t" if first.method == "exact" else f"estimate from {first.evals} network calls an image"
    step = "" if result.step is None else f", step {result.step:,}"
    caption = [
        f"{how}; x_0 {'clipped' if first.clip_x0 else 'not clipped'}; decoder: {first.decoder}; upper bounds on -log p(x_0). "
        "± is a standard error; of the estimate: against every t on the same images; of the images: as a sample of the data. "
        "The 95% interval holds both.",
    ]
    if result.gap:
        caption.append(f"Gap, test minus train: {result.gap.value:+.4f} ± {result.gap.standard_error:.4f} bits/dim.")
    table = Table(
        title=f"Bits/dim of {result.checkpoint} ({KINDS[result.weights]}{step}) on {result.data.name}",
        caption="\n".join(caption),
    )
    table.add_column("split")
    for head in ("images", "L_T", "L_1..L_T-1", "L_0", "total", "± estimate", "± images", "95% interval"):
        table.add_column(head, justify="right")
    for bound in result.bounds:
        low, high = bound.interval
        table.add_row(
            bound.split, f"{bound.images:,}", f"{bound.prior:.1e}", f"{bound.middle:.4f}", f"{bound.first:.4f}",
            f"{bound.total:.4f}", "none" if bound.method == "exact" else f"{bound.estimate_error:.4f}",
            f"{bound.sampling_error:.4f}", f"{low:.3f} to {high:.3f}",
        )  # fmt: skip
    return table
