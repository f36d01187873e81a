"""The gradient noise of checkpoints: as a table at the terminal and as a figure (Nichol, Dhariwal 2021, Figure 7)."""

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table as RichTable

from ddpm_bench.models.model_card import KINDS
from ddpm_bench.records.gradient_noise import GradientNoise, Noise
from ddpm_bench.report.figures.cell_styles import style_at
from ddpm_bench.report.figures.drawing import WIDTH, canvas, save
from ddpm_bench.report.figures.scales import plain_log
from ddpm_bench.report.labels import mathtext


def gradient_noise_table(found: Sequence[GradientNoise]) -> RichTable:
    """A row for each checkpoint and objective."""
    first = found[0]
    table = RichTable(
        title=f"Gradient noise on {first.data.name}",
        caption="Noise scale: tr(cov of one image's gradient) / |mean gradient|^2, in images; a batch of so many has as much noise as "
        f"signal. From {first.batches:,} batches of {first.batch}, seed {first.seed}; in brackets by either half of them.\n"
        "none: noise hides the mean gradient; give more batches.",
    )
    for head in ("checkpoint", "weights", "step", "objective", "tr(cov)", "|mean|^2", "noise scale"):
        table.add_column(head, justify="left" if head in ("checkpoint", "weights", "objective") else "right")
    for one in found:
        for noise in one.noises:
            halves = " to ".join(_shown(half) for half in noise.halves)
            table.add_row(
                one.checkpoint, KINDS[one.weights], "" if one.step is None else f"{one.step:,}", noise.objective,
                f"{noise.trace:.3g}", f"{noise.squared_norm:.3g}", f"{_shown(noise.scale)} [{halves}]",
            )  # fmt: skip
    return table


def draw_gradient_noise(found: Sequence[GradientNoise], png: Path) -> Path:
    """Write the PNG: a place for each checkpoint, a mark for each objective, lines over its two halves; returns the PDF beside it."""
    names = list(dict.fromkeys(noise.objective for one in found for noise in one.noises))
    with canvas() as figure:
        figure.set_size_inches(WIDTH, 2.8)
        axes = figure.subplots()
        for place, name in enumerate(names):
            style, aside = style_at(place), 0.06 * (place - (len(names) - 1) / 2)
            points = [
                (at + aside, noise) for at, one in enumerate(found) for noise in one.noises if noise.objective == name
            ]
            seen = [(x, noise.scale) for x, noise in points if noise.scale]
            axes.plot(
                [x for x, _ in seen], [y for _, y in seen], style.mark, color=style.colour, markersize=style.size,
                linestyle=style.line if len(found) > 1 else "", label=mathtext(name),
            )  # fmt: skip
            for x, noise in points:
                axes.plot([x, x], _halves(noise), color=style.colour, linewidth=1)
        axes.set_yscale("log")
        plain_log(axes.yaxis)
        places = [one.checkpoint if one.step is None else f"{one.checkpoint}\n{one.step:,}" for one in found]
        axes.set_xticks(range(len(found)), places)
        axes.set(xlim=(-0.5, len(found) - 0.5), xlabel="checkpoint, training step", ylabel="noise scale, images")
        axes.grid(axis="y")
        figure.legend(loc="outside right center", frameon=False)
        return save(figure, png)


def _halves(noise: Noise) -> list[float]:
    return [half if half else float("nan") for half in noise.halves]


def _shown(scale: float | None) -> str:
    return "none" if scale is None else f"{scale:,.3g}"
