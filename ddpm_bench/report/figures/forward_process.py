"""The forward process: beta_t, alpha_bar_t, and one image on its way to noise.

Tables are computed in float64 without torch, from a record's settings; a test holds them to `diffusion/schedule.py`.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.figure import Figure, FigureBase

from ddpm_bench.config.settings import ProcessSettings
from ddpm_bench.records.record import Record
from ddpm_bench.report.figures.drawing import BLACK, SMALL, WIDTH, Said
from ddpm_bench.report.figures.mosaics import left_of, mosaic
from ddpm_bench.report.figures.scales import plain_log
from ddpm_bench.report.pictures import GRID_SIDE, PictureFolder, runs_of
from ddpm_bench.report.summary import Summary
from ddpm_bench.runtime.observer import say

STATIONS = 11
"""Images of the strip, at evenly spaced t from 0 to T."""
SEED = 0
"""Of the strip's noise."""


def _cosine(process: ProcessSettings) -> np.ndarray:
    t = np.arange(process.T + 1)
    f = np.cos((t / process.T + 0.008) / 1.008 * math.pi / 2) ** 2
    return np.minimum(1 - f[1:] / f[:-1], 0.999)


def _geometric(process: ProcessSettings) -> np.ndarray:
    variance = np.geomspace(*process.ends, process.T) ** 2
    return np.diff(variance, prepend=0) / (1 + variance)


BETAS: dict[str, Callable[[ProcessSettings], np.ndarray]] = {
    "linear": lambda process: np.linspace(process.beta_1, process.beta_T, process.T),
    "linear-openai": lambda process: np.linspace(process.beta_1, process.beta_T, process.T) * 1000 / process.T,
    "quadratic": lambda process: np.linspace(process.beta_1**0.5, process.beta_T**0.5, process.T) ** 2,
    "constant": lambda process: np.full(process.T, process.beta_T),
    "cosine": _cosine,
    "geometric": _geometric,
}
"""beta_1..beta_T, float64 (T,), by name of the schedule."""


def draw_schedule(figure: Figure, summaries: Sequence[Summary], pictures: PictureFolder) -> Said | None:
    """Three panels, and under them the strip where a generated image is at hand."""
    summary = summaries[0]
    process = summary.first.settings.diffusion
    if process.schedule not in BETAS:
        say(f"Report: there is no figure of the schedule '{process.schedule}'.")
        return None
    betas = BETAS[process.schedule](process)
    alpha_bar = np.cumprod(1 - betas)
    found = _generated(summary, pictures)
    said = (
        f"Forward process: schedule {process.schedule}, T = {process.T:,}, beta_1 = {betas[0]:.3g}, "
        f"beta_T = {betas[-1]:.3g}, alpha_bar_T = {alpha_bar[-1]:.2g}; "
        "computed from the settings in the records, the same in every cell."
    )
    t = np.arange(1, len(betas) + 1)
    half, little = (int(t[alpha_bar < level][0]) if alpha_bar[-1] < level else None for level in (0.5, 0.01))
    seen = f"beta_t runs from {betas[0]:.3g} to {betas[-1]:.3g}; alpha_bar_t, the share of the image's variance that is left, "
    seen += (f"is below one half from t = {half} on" if half else "stays above one half") + (
        f" and below a hundredth from t = {little} on." if little else "."
    )
    if found is None:
        figure.set_size_inches(WIDTH, 1.9)
        _draw_tables(figure, betas, alpha_bar)
        return Said(said, seen)
    image, whose = found
    figure.set_size_inches(WIDTH, 2.6)
    upper, lower = figure.subfigures(2, 1, height_ratios=(1.9, 0.7), squeeze=False)[:, 0]
    _draw_tables(upper, betas, alpha_bar)
    _draw_strip(lower, image, alpha_bar)
    return Said(
        f"{said} Below, x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 − alpha_bar_t) epsilon for one x_0, the first sample of "
        f"cell {whose.cell}, seed {whose.seed} (generated, not an image of the data), and the same noise epsilon at "
        "every t.",
        f"{seen} Below, an image turns into noise in {STATIONS} steps.",
    )


def _draw_tables(figure: FigureBase, betas: np.ndarray, alpha_bar: np.ndarray) -> None:
    t = np.arange(1, len(betas) + 1)
    beta, linear, logarithmic = figure.subplots(1, 3)
    for axes, values, name in (
        (beta, betas, r"$\beta_t$"),
        (linear, alpha_bar, r"$\bar\alpha_t$"),
        (logarithmic, alpha_bar, r"$\bar\alpha_t$, log scale"),
    ):
        axes.plot(t, values, color=BLACK, linewidth=1.4)
        axes.set_title(name)
        axes.set_xlabel("step $t$")
        axes.set_xlim(0, len(betas))
        axes.set_ylim(bottom=0)
        axes.grid(True)
    logarithmic.set_ylim(auto=True)
    logarithmic.set_yscale("log")
    logarithmic.autoscale(axis="y")
    plain_log(logarithmic.yaxis)


def _draw_strip(figure: FigureBase, image: np.ndarray, alpha_bar: np.ndarray) -> None:
    T = len(alpha_bar)
    at = sorted({round(T * part / (STATIONS - 1)) for part in range(STATIONS)})
    axes = figure.subplots()
    axes.imshow(mosaic(noised(image, alpha_bar, at)[None]), cmap="gray", vmin=0, vmax=255)
    width = image.shape[1]
    places = [left_of(index, width) + (width - 1) / 2 for index in range(len(at))]
    axes.set_xticks(places, ["$t = 0$" if t == 0 else str(t) for t in at], fontsize=SMALL)
    axes.set_yticks([])
    axes.tick_params(length=0, pad=2)
    for side in axes.spines.values():
        side.set_visible(False)


def noised(image: np.ndarray, alpha_bar: np.ndarray, at: Sequence[int]) -> np.ndarray:
    """x_t at each t of `at`, 0 for the image itself, with one noise for all: uint8 (H, W, C) -> (len(at), H, W, C)."""
    x0 = image / 127.5 - 1
    noise = np.random.default_rng(SEED).standard_normal(image.shape)
    signal = np.concatenate([[1.0], alpha_bar])[list(at)][:, None, None, None]
    x_t = np.sqrt(signal) * x0 + np.sqrt(1 - signal) * noise
    return np.clip(np.rint((x_t + 1) * 127.5), 0, 255).astype(np.uint8)


def _generated(summary: Summary, pictures: PictureFolder) -> tuple[np.ndarray, Record] | None:
    """The first sample of the last cell that has a picture: in tables of the paper, its own method."""
    for row in reversed(summary.rows):
        for record in runs_of(row):
            if record.sample_grid and record.outcome == "done":
                tiles = pictures.tiles(record.sample_grid, record.data.shape, GRID_SIDE)
                if tiles is not None:
                    return tiles[0, 0], record
    return None
