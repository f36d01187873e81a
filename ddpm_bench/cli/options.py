"""The options that several commands share, each said once, and the reading of lists. Imports no torch."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import typer

from ddpm_bench.config.limits import LARGEST_SEED
from ddpm_bench.config.resizing import Resize
from ddpm_bench.errors import UserError
from ddpm_bench.text import brief, check_plain


def plain_text(text: str | None) -> str | None:
    """UserError for a text that results would carry and that is none."""
    try:
        check_plain(text)
    except ValueError as error:
        raise UserError(f"{brief(text)} {error}.") from None
    if text is not None and not text.strip():
        raise UserError("A name or place that is given must not be empty.")
    return text


def plain_path(path: Path | None) -> Path | None:
    plain_text(None if path is None else str(path))
    return path


Grid = Annotated[str, typer.Option(help="A shipped grid (see `ddpm-bench grids`) or the path of a .toml file.")]
Preset = Annotated[str, typer.Option(help="A shipped preset (see `ddpm-bench grids`) or the path of a .toml file.")]
Cells = Annotated[str, typer.Option(help="Only these cells, separated by commas.")]
Seeds = Annotated[str, typer.Option(help="Seeds, separated by commas, as 0,1,2 or 0-9: each cell runs once a seed.")]
Seed = Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Seed of every random draw.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="Override a value, e.g. training.steps=1000. Repeatable.")]
DATA_HELP = "embedded (fashion-mnist-10k, in the package), cifar10, mnist, fashion-mnist, folder:PATH or npz:PATH."
EXTRACTOR_HELP = (
    "inception, efficientnet-lite0, embedded, dinov2:WEIGHTS, clip:WEIGHTS, or the path of an extractor of your own"
)
IN_COLOUR = "inception where its weights are at hand, else efficientnet-lite0"
Data = Annotated[str | None, typer.Option(callback=plain_text, help=DATA_HELP)]
DataName = Annotated[
    str | None, typer.Option(callback=plain_text, help="The label that results carry for a folder or npz.")
]
DataRoot = Annotated[
    Path | None, typer.Option(help="Where downloads lie or are put, and images of a folder too large to hold.")
]
Resizing = Annotated[
    Resize | None,
    typer.Option(
        "--resize", help="How images of the data set are brought to another size [default: they are refused]."
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
Keep = Annotated[int, typer.Option(min=1, help="How many training checkpoints to keep on the disk.")]
Compile = Annotated[
    bool, typer.Option("--compile", help="Compile the network (torch.compile): minutes once, then faster, on a GPU.")
]
Precision = Annotated[
    Literal["float32", "bfloat16", "auto"] | None,
    typer.Option(
        help="What networks compute in; auto times both on the network at hand and takes the faster "
        "[default: float32; on a GPU bfloat16]."
    ),
]
Batch = Annotated[int | None, typer.Option(min=1, help="Images a network call outside training; changes no result.")]
Gpus = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Share the work of this command among so many GPUs of this machine [default: 1; torchrun starts several, too].",
    ),
]
Launcher = Annotated[
    str | None,
    typer.Option(
        help="Where cells run: inline (in this process), local (in processes of this machine), ray or slurm (extras of the same name) "
        "[default: inline for one cell at a time, else local]."
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Cells at a time [default: all on a cluster; here as many as --devices, else one a core on a CPU and one on a GPU].",
    ),
]
Devices = Annotated[
    str | None,
    typer.Option(
        help="GPUs of this machine by number, separated by commas: each worker of local sees one of them alone."
    ),
]
CpusPerCell = Annotated[
    int | None,
    typer.Option(
        min=1, help="Threads of a cell, with local, ray and slurm [default: the share of the cores; on a cluster 1]."
    ),
]
GpusPerCell = Annotated[
    float | None,
    typer.Option(help="GPUs of a cell, with ray and slurm: 0 or 1, with ray also a part of one [default: 0]."),
]
Address = Annotated[
    str | None,
    typer.Option(
        help="The Ray cluster: HOST:PORT, or auto [default: RAY_ADDRESS, else one of its own on this machine]."
    ),
]
Partition = Annotated[str | None, typer.Option(help="Slurm's partition [default: as Slurm chooses].")]
Hours = Annotated[
    float | None,
    typer.Option(help="Time limit of a Slurm job, which saves there and goes back into the queue [default: 12]."),
]
Memory = Annotated[float | None, typer.Option(help="Memory of a Slurm job in GB [default: as Slurm gives].")]
CKPT_HELP = "A checkpoint folder, as `train`, `ablate` and `import` leave it."
Ckpt = Annotated[Path, typer.Option(callback=plain_path, help=CKPT_HELP)]
Raw = Annotated[bool, typer.Option("--raw", help="The raw weights instead of their moving average.")]
Clip = Annotated[
    bool | None,
    typer.Option(
        "--clip/--no-clip",
        help="Whether the predicted x_0 is clipped to [-1, 1] [default: as the checkpoint is sampled].",
    ),
]
Steps = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Sampling steps, a strided chain with re-derived betas where fewer than T [default: the checkpoint's own].",
    ),
]
Spacing = Annotated[
    str | None,
    typer.Option(
        help="Which steps a chain of fewer than T visits: even, openai, leading, linspace, trailing, ddim-uniform, ldm, "
        "ddim-quad, tau-linear or tau-quadratic [default: the checkpoint's own]."
    ),
]
Results = Annotated[
    str | None,
    typer.Option(
        callback=plain_text,
        help="Folder of the records, or a URL that fsspec knows, as s3://bucket/table2 [default: results/GRID-PRESET].",
    ),
]
Reports = Annotated[Path | None, typer.Option(help="Folder of the report [default: reports/GRID-PRESET].")]
Json = Annotated[bool, typer.Option("--json", help="Print the results as JSON on stdout.")]
Tensorboard = Annotated[
    Path | None, typer.Option(help="Write TensorBoard event files into this folder (extra `tensorboard`).")
]
Fresh = Annotated[bool, typer.Option("--fresh", help="Measure again; what was there is set aside, not lost.")]
Extractor = Annotated[
    str | None,
    typer.Option(
        callback=plain_text, help=f"{EXTRACTOR_HELP} [default: embedded for grey images; for colour {IN_COLOUR}]."
    ),
]
Weights = Annotated[Path | None, typer.Option(help="The Inception weights file, where it cannot be downloaded.")]
Unverified = Annotated[
    bool,
    typer.Option(
        "--allow-unverified-weights", help="Accept other weights of Inception, DINOv2 or CLIP; every table will say so."
    ),
]
Cache = Annotated[
    Path, typer.Option(help="Folder for downloaded weights, reference features, anchors, and what `nll` has finished.")
]

CACHE = Path.home() / ".cache" / "ddpm-bench"


def assignments(
    data: str | None, name: str | None, root: Path | None, resize: Resize | None, extractor: str | None = None
) -> list[str]:
    """The options that stand for a --set."""
    named = {
        "data.source": data, "data.name": name, "data.root": root, "data.resize": resize, "scoring.extractor": extractor,
    }  # fmt: skip
    return [f"{key}={json.dumps(str(value), ensure_ascii=False)}" for key, value in named.items() if value is not None]


def refuse(options: Mapping[str, object], why: str) -> None:
    """UserError for the first of these options, by name, that was given."""
    for name, value in options.items():
        if value is not None and value is not False:
            raise UserError(f"{name} {why}")


def words(text: str) -> list[str]:
    """`a, b` -> ["a", "b"]"""
    return [part.strip() for part in text.split(",") if part.strip()]


MOST_IN_A_ROW = 100_000
"""Numbers that `0-9` may stand for."""


def numbers(option: str, text: str) -> list[int]:
    """`0,2,7-9` -> [0, 2, 7, 8, 9], each once; UserError naming the option for anything else."""
    found: dict[int, None] = {}
    for word in words(text) or [""]:
        ends = word.split("-")
        if len(ends) > 2 or not all(end.isascii() and end.isdecimal() for end in ends):
            raise UserError(f"{option} {brief(text)} must be whole numbers separated by commas, such as 0,1,2 or 0-9.")
        if any(len(end) > len(str(LARGEST_SEED)) or int(end) > LARGEST_SEED for end in ends):
            raise UserError(f"{option} {brief(word)} is too large; the largest seed is {LARGEST_SEED:,}.")
        first, last = int(ends[0]), int(ends[-1])
        if not first <= last < first + MOST_IN_A_ROW:
            raise UserError(
                f"{option} {brief(word)} must go up, and by {MOST_IN_A_ROW:,} numbers at most: the first, a hyphen, the last."
            )
        found |= dict.fromkeys(range(first, last + 1))
    return list(found)


def device_numbers(text: str) -> tuple[int, ...]:
    """`0,1` -> (0, 1); UserError for anything else, and for one that stands twice."""
    found = words(text)
    if not found or not all(word.isascii() and word.isdecimal() and len(word) < 5 for word in found):
        raise UserError(f"--devices {brief(text)} must be the numbers of GPUs separated by commas, such as 0,1.")
    numbered = tuple(map(int, found))
    if len(set(numbered)) < len(numbered):
        raise UserError(f"--devices {brief(text)} names a GPU twice; --workers says how many cells share them.")
    return numbered
