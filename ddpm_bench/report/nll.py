"""The bound of one checkpoint: as a table at the terminal, and its progressive code as a page."""

from pathlib import Path, PurePosixPath

from rich.table import Table as RichTable

from ddpm_bench.config.shipped import load_coding
from ddpm_bench.files import write_json, write_text
from ddpm_bench.models.model_card import KINDS
from ddpm_bench.records.nll import Nll
from ddpm_bench.report.blocks import Block, Heading, Image, Paragraph
from ddpm_bench.report.figures.progressive_coding import plot_progressive
from ddpm_bench.report.progressive_coding import Coded, coded, split_in_words
from ddpm_bench.report.sections.bounds import code_table
from ddpm_bench.report.table_remarks import dequantised_in_words
from ddpm_bench.report.writers.markdown import to_markdown

PUBLISHED_CODE = "ddpm-table4"


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
    page: list[Block] = [
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


def likelihood_table(result: Nll) -> RichTable:
    """One row for each split: the likelihood by the ODE, which no bound stands beside."""
    first = result.likelihoods[0]
    caption = [
        f"Likelihood by the probability flow ODE, no variational bound: RK45, rtol = {first.rtol:g}, atol = {first.atol:g}; "
        f"{dequantised_in_words(first)}; {first.draws} draw{'s' * (first.draws > 1)} an image, each with a "
        f"Rademacher probe; density of images with noise sigma_0 = {first.sigma_0:g}; x_0 not clipped. "
        "Standard errors: ± draws, by these alone; ± images, of these images as a sample of the data, the draws within. "
        "The 95% interval covers both.",
        *result.data.notes,
    ]
    table = RichTable(title=f"Bits/dim (ODE) of {result.checkpoint} on {result.data.name}", caption="\n".join(caption))
    table.add_column("split")
    for head in ("images", "prior", "flow", "total", "± draws", "± images", "95% interval", "network calls"):
        table.add_column(head, justify="right")
    for one in result.likelihoods:
        low, high = one.interval
        table.add_row(
            one.split, f"{one.images:,}", f"{one.prior:.4f}", f"{one.flow:.4f}", f"{one.total:.4f}",
            "not known" if one.draw_error is None else f"{one.draw_error:.4f}", f"{one.standard_error:.4f}",
            f"{low:.3f} to {high:.3f}", f"{one.calls:,.0f}",
        )  # fmt: skip
    return table


def nll_table(result: Nll) -> RichTable:
    """One row for each split: the parts, the total, the error of the estimate and that of the choice of images."""
    first = result.bounds[0]
    how = "every t" if first.method == "exact" else f"estimate from {first.evals} network calls an image"
    step = "" if result.step is None else f", step {result.step:,}"
    chain = f"of the strided chain of {first.steps} steps; " if first.steps else ""
    caption = [
        f"{chain}{how}; x_0 {'clipped' if first.clip_x0 else 'not clipped'}; decoder: {first.decoder}; upper bounds on -log p(x_0). "
        "Standard errors: ± estimate, against the exact bound of the same images; ± images, of these images as a sample of the "
        "data. The 95% interval covers both.",
    ]
    if result.gap:
        caption.append(f"Gap, test minus train: {result.gap.value:+.4f} ± {result.gap.standard_error:.4f} bits/dim.")
    caption += result.data.notes
    table = RichTable(
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
