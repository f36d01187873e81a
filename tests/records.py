"""Synthetic records: what `run_cell` writes, without running anything. The numbers are plausible and mean nothing."""

from pathlib import Path
from typing import Any

from PIL import Image

from ddpm_bench.config.grid import Grid
from ddpm_bench.config.preset import load_preset, resolve
from ddpm_bench.config.settings import CellSettings
from ddpm_bench.config.shipped import load_grid
from ddpm_bench.records.likelihoods import BoundTerms
from ddpm_bench.records.record import (
    Checkpoint,
    DataInfo,
    Divergence,
    ExtractorInfo,
    LogPoint,
    Neighbours,
    Record,
    write_record,
)

EMBEDDED = ExtractorInfo(
    name="embedded", sha256="e" * 64, verified=True, labels=("FD (embedded)", "IS (embedded)"), feature_dim=128
)
INCEPTION = ExtractorInfo(
    name="inception", sha256="6726825d" + "0" * 56, verified=True, labels=("FID", "IS"), feature_dim=2048
)
UNVERIFIED = INCEPTION.model_copy(update={"sha256": "bad0" * 16, "verified": False})

_ANCHOR_KEYS = ("is_mean", "is_std", "fd_train", "kid_mean", "precision", "recall")
ANCHORS = {
    name: dict(zip(_ANCHOR_KEYS, values, strict=True))
    for name, values in {
        "held-out real": (7.31, 0.12, 4.2, -0.0003, 0.842, 0.838),
        "blurred": (4.02, 0.10, 61.5, 0.2802, 0.310, 0.120),
        "uniform noise": (1.31, 0.01, 522.0, 0.7825, 0.0, 0.0),
    }.items()
}
# cell: IS, distance, test bound
LEVELS = {
    "mu-L-learned": (4.4, 92.0, 4.61), "mu-L-fixed": (4.8, 81.0, 4.71), "mu-mse-fixed": (3.2, 160.0, 8.61),
    "eps-L-learned": (5.0, 64.0, 4.32), "eps-L-fixed": (4.9, 61.0, 4.40), "eps-mse-fixed": (5.9, 33.0, 4.82),
}  # fmt: skip


def metrics(cell: str, seed: int, factor: float = 1.0) -> dict[str, float]:
    """Metrics of a cell, a little different for every seed."""
    score, distance, bound = LEVELS.get(cell, (4.0, 100.0, 5.0))
    shift = (0.0, 0.31, -0.17, 0.12)[seed % 4]
    return {
        "is_mean": score + 0.3 * shift, "is_std": 0.11, "fd_train": distance * factor * (1 + 0.1 * shift),
        "fd_infinity": 0.9 * distance * factor * (1 + 0.1 * shift),
        "kid_mean": 0.2457 + 0.01 * shift, "kid_std": 0.0539,
        "precision": 0.612 + 0.1 * shift, "recall": 0.404 - 0.1 * shift,
        "bound_test_bits_per_dim": bound + 0.05 * shift, "bound_train_bits_per_dim": bound - 0.02 + 0.05 * shift,
    }  # fmt: skip


def quantiles(metrics: dict[str, float]) -> dict[str, tuple[float, ...]]:
    """Symmetric intervals, 3% of the value to either side at 95%, for the metrics that have one."""
    having = ("is_mean", "fd_train", "fd_test", "fd_infinity", "bound_test_bits_per_dim", "bound_train_bits_per_dim")
    return {key: _around(metrics[key], 0.03) for key in having if key in metrics}


def _around(value: float, share: float) -> tuple[float, ...]:
    return tuple(value * (1 + share * at) for at in (-1, -0.5, 0, 0.5, 1))


PICTURES = ("progressive", "neighbours-pixel", "neighbours-feature")
NEIGHBOURS = {
    "pixel": Neighbours(
        samples=(0.121, 0.087, 0.143, 0.099, 0.132, 0.110, 0.156, 0.104),
        test=(0.119, 0.092, 0.151, 0.098, 0.127, 0.103, 0.149, 0.113),
    ),
    "feature": Neighbours(
        samples=(0.41, 0.37, 0.52, 0.44, 0.39, 0.47, 0.60, 0.43), test=(0.33, 0.29, 0.45, 0.31, 0.35, 0.38, 0.41, 0.30)
    ),
}


def make_record(
    grid: Grid,
    cell: str,
    seed: int = 0,
    *,
    preset: str = "quick",
    overrides: dict[str, dict[str, Any]] | None = None,
    extractor: ExtractorInfo = EMBEDDED,
    diverged: Divergence | None = None,
    checkpoints: tuple[Checkpoint, ...] | None = None,
) -> Record:
    """The record of one cell and seed: of a run that `diverged`, or with these `checkpoints` in place of one."""
    [row] = grid.select([cell])
    settings = resolve(row, load_preset(preset), overrides or {})
    steps = settings.training.steps
    if checkpoints is None:
        checkpoints = () if diverged else (make_checkpoint(steps, metrics(cell, seed)),)
    end = diverged.step if diverged else steps
    ticks = range(settings.training.log_every, end + 1, settings.training.log_every)
    log = [
        LogPoint(
            step=step, loss=(0.9 if row.objective == "L" else 0.4) / step**0.5 + 0.01 * (seed + 1), gradient_norm=0.5
        )
        for step in ticks
    ]
    splits = ("test", "train") if settings.scoring.bound_images else ()
    bounds = [make_bound(cell, seed, split, settings) for split in splits]
    side = settings.data.size
    cifar = settings.data.source == "cifar10"
    return Record(
        grid=grid.name,
        preset=preset,
        cell=cell,
        label=row.label,
        axes=grid.axes,
        seed=seed,
        outcome="diverged" if diverged else "done",
        divergence=diverged,
        settings=settings,
        data=DataInfo(
            name="CIFAR-10" if cifar else "fashion-mnist-10k",
            sha256="d" * 64,
            train_images=50_000 if cifar else 10_000,
            test_images=10_000 if cifar else 2_000,
            shape=(3 if cifar else 1, side, side),
        ),
        extractor=extractor,
        parameters=412_345,
        images_seen=end * settings.training.batch,
        samples=settings.sampling.samples,
        sampling_steps=settings.sampling.steps or settings.diffusion.T,
        network_calls=settings.sampling.steps or settings.diffusion.T,
        checkpoints=checkpoints,
        bounds=() if diverged else tuple(bounds),
        anchors=ANCHORS,
        training_log=tuple(log),
        sample_grid=None if diverged else f"{cell}-seed{seed}.png",
        pictures={} if diverged else {name: f"{cell}-seed{seed}-{name}.png" for name in PICTURES},
        neighbours={} if diverged else NEIGHBOURS,
        wall_time_s={"training": 61.2, "sampling": 33.1, "scoring": 4.5, "bound": 20.25},
        versions={"ddpm-bench": "0.1.0", "python": "3.11.2", "torch": "2.15.0", "torch-fidelity": "0.4.0"},
        git_commit="0123456789abcdef0123456789abcdef01234567",
        hardware={"device": "cpu", "processor": "Synthetic CPU @ 2.00 GHz", "cores": 2, "threads": 2},
        created="2026-11-21T21:00:00+00:00",
    )


def make_checkpoint(step: int, found: dict[str, float]) -> Checkpoint:
    """With intervals, as a run scores one."""
    return Checkpoint(step=step, metrics=found, quantiles=quantiles(found))


def make_bound(cell: str, seed: int, split: str, settings: CellSettings) -> BoundTerms:
    """An exact bound as `metrics` has it: L_0 two fifths of it, and terms and errors that fall towards t = T."""
    T = settings.diffusion.T
    total, prior = metrics(cell, seed)[f"bound_{split}_bits_per_dim"], 1e-5
    first = 0.4 * total
    weights = [t**-1.5 for t in range(2, T + 1)]
    rest = [(total - first - prior) * weight / sum(weights) for weight in weights]
    return BoundTerms(
        split=split,
        images=settings.scoring.bound_images,
        evals=T,
        total=total,
        standard_error=0.02,
        prior=prior,
        middle=sum(rest),
        first=first,
        terms=(first, *rest),
        mse=tuple(0.2 * (t / T) ** 2 for t in range(1, T + 1)),
        quantiles=_around(total, 0.03),
    )


def quick_records(grid: Grid | None = None, seeds: tuple[int, ...] = (0, 1, 2)) -> list[Record]:
    """Table 2, preset quick, all kinds of cell: done (one over 8 bits/dim), partly diverged, diverged, not measured."""
    grid = grid or load_grid("table2")
    records = []
    for seed in seeds:
        records += [make_record(grid, cell, seed) for cell in ("mu-L-learned", "mu-mse-fixed", "eps-L-learned")]
        late = Divergence(step=310, reason="the loss is not finite")
        records.append(make_record(grid, "mu-L-fixed", seed, diverged=late if seed == 2 else None))
        early = Divergence(step=45, reason="FD (embedded) 640.1 is worse than uniform noise's 522.0")
        records.append(make_record(grid, "eps-L-fixed", seed, diverged=early))
    return records


def paper_records(grid: Grid | None = None, extractor: ExtractorInfo = INCEPTION) -> list[Record]:
    """Table 2 under the paper's own conditions, one seed a cell, three checkpoints of which the second is the best."""
    grid = grid or load_grid("table2")
    records = []
    for cell in grid.cells:
        scored = []
        for step, factor in ((400_000, 1.5), (600_000, 0.8), (800_000, 1.0)):
            found = metrics(cell.name, 0, factor)
            if step != 800_000:  # the bound is measured for the last checkpoint only
                found = {key: value for key, value in found.items() if not key.startswith("bound")}
            scored.append(make_checkpoint(step, found))
        overrides = {"training": {"log_every": 20_000}}
        records.append(
            make_record(
                grid, cell.name, preset="paper", overrides=overrides, extractor=extractor, checkpoints=tuple(scored)
            )
        )
    return records


def write_results(folder: Path, records: list[Record]) -> None:
    """Write records and their pictures beside each, as `ablate` does."""
    for record in records:
        write_record(folder, record)
        for name in (record.sample_grid, *record.pictures.values()):
            if name:
                Image.effect_noise((265, 265), 60 + 10 * record.seed).save(folder / name)
