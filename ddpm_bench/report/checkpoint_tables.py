"""The rows of a folder as tables: Markdown, CSV and the terminal. Rows measured in different ways share no table."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from rich import box
from rich.console import Group
from rich.table import Table as RichTable
from rich.text import Text

from ddpm_bench.config.metrics import METRICS
from ddpm_bench.files import write_text
from ddpm_bench.models.card import KINDS
from ddpm_bench.records.record import BoundTerms
from ddpm_bench.records.row import Row
from ddpm_bench.report.labels import escape_markdown, one_line
from ddpm_bench.report.table import ARROWS
from ddpm_bench.report.words import EMPTY, NOT_MEASURED, NOT_SCORED

SPREADS = {"is_mean": "is_std", "kid_mean": "kid_std"}
SCORES = ("is_mean", "fd_train", "fd_test", "kid_mean", "precision", "recall")
BOUNDS = {"test": "bound_test_bits_per_dim", "train": "bound_train_bits_per_dim"}
PUBLISHED_SAMPLES = 50_000


@dataclass(frozen=True)
class Table:
    """Plain text: `lines` and `anchors` as long as `heads`, `origins` as long as ORIGIN; the first field is a name."""

    title: str
    heads: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]
    anchors: tuple[tuple[str, ...], ...]
    remarks: tuple[str, ...]
    origins: tuple[tuple[str, ...], ...]


ORIGIN = ("checkpoint", "bound", "SHA-256 of the weights", "seed", "device", "measured", "commit", "versions")


def make_tables(rows: Sequence[Row]) -> list[Table]:
    """One table for each set of conditions, rows in order of name."""

    def conditions(row: Row) -> str:
        return repr(row.setup.conditions)

    ordered = sorted(rows, key=lambda row: (conditions(row), row.name))
    return [_table(list(members)) for _, members in groupby(ordered, key=conditions)]


def write_tables(folder: Path, rows: Sequence[Row]) -> None:
    """Write table.md and table.csv."""
    write_text(folder / "table.md", "\n\n".join(map(to_markdown, make_tables(rows))) + "\n")
    write_text(folder / "table.csv", to_csv(rows))


def to_markdown(table: Table) -> str:
    """Heading, table with its anchors, remarks, and where the numbers came from."""

    def grid(heads: Sequence[str], lines: Sequence[Sequence[str]], left: int) -> str:
        rule = ["---"] * left + ["---:"] * (len(heads) - left)
        return "\n".join(f"| {' | '.join(map(escape_markdown, line))} |" for line in (heads, *lines)).replace(
            "\n", f"\n| {' | '.join(rule)} |\n", 1
        )

    parts = [f"## {escape_markdown(table.title)}", grid(table.heads, (*table.lines, *table.anchors), 1)]
    parts += ["\n".join(f"- {escape_markdown(remark)}" for remark in table.remarks)]
    return "\n\n".join([*parts, grid(ORIGIN, table.origins, len(ORIGIN))])


def to_terminal(tables: Sequence[Table]) -> Group:
    """Tables as wide as they need to be, remarks below."""
    shown = []
    for table in tables:
        grid = RichTable(title=Text(table.title), box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
        for index, head in enumerate(table.heads):
            grid.add_column(Text(head), justify="right" if index else "left")
        for line in table.lines:
            grid.add_row(*map(Text, map(one_line, line)))
        grid.add_section()
        for line in table.anchors:
            grid.add_row(*map(Text, line), style="dim")
        bounds = [f"{name}: bound: {how}" for name, how, *_ in table.origins]
        shown += [grid, *(Text(f"- {said}") for said in (*table.remarks, *bounds)), Text("")]
    return Group(*shown)


def to_csv(rows: Sequence[Row]) -> str:
    """One line a row with everything that is a number or a word, one column each."""
    lines = [_flat(row) for row in rows]
    names = list(dict.fromkeys(name for line in lines for name in line))
    out = io.StringIO()
    writer = csv.DictWriter(out, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue()


def _table(rows: list[Row]) -> Table:
    first = rows[0].setup
    scores = [key for key in SCORES if any(key in row.metrics for row in rows)]
    splits = [split for split, key in BOUNDS.items() if any(key in row.metrics for row in rows)]
    keys = [*scores, *(BOUNDS[split] for split in splits)]
    about = ("checkpoint", "weights", "parameters", "predicts", "chain")
    heads = [f"{METRICS[key].heading(first.extractor.labels)} {ARROWS[METRICS[key].direction]}" for key in keys]
    lines = [
        (row.name, *_about(row), *(_score(row, key) for key in scores), *(_bound(row, split) for split in splits))
        for row in rows
    ]
    empty = [EMPTY] * (len(about) - 1)
    anchors = [
        (name, *empty, *(f"{values[key]:.{METRICS[key].digits}f}" if key in values else EMPTY for key in keys))
        for name, values in rows[0].anchors.items()
    ]
    mark = "" if first.extractor.verified else ", UNVERIFIED extractor weights"
    size = "x".join(map(str, first.data.shape[:0:-1]))
    title = (
        f"{first.samples:,} samples against the {first.data.train_images:,} training images of {first.data.name} "
        f"({size}), extractor {first.extractor.name}{mark}"
    )
    remarks = _remarks(rows, bool(splits))
    return Table(title, (*about, *heads), tuple(lines), tuple(anchors), tuple(remarks), tuple(map(_origin, rows)))


def _about(row: Row) -> tuple[str, ...]:
    setup, model = row.setup, row.setup.model
    chain = f"{setup.sampling_steps} of T = {model.T}, {model.schedule}"
    return (
        KINDS[model.weights] + ("" if model.step is None else f", step {model.step:,}"),
        f"{model.parameters:,}",
        f"{model.predicts}, {model.variance}",
        chain + (", clipped" if setup.clip_x0 else ", not clipped"),
    )


def _score(row: Row, key: str) -> str:
    if key not in row.metrics:
        return NOT_SCORED
    digits, spread = METRICS[key].digits, row.metrics.get(SPREADS.get(key, ""))
    return f"{row.metrics[key]:.{digits}f}" + ("" if spread is None else f" ± {spread:.{digits}f}")


def _bound(row: Row, split: str) -> str:
    found = [bound for bound in row.bounds if bound.split == split]
    if not found:
        return NOT_SCORED
    low, high = found[0].interval
    return f"{found[0].total:.3f} ± {(high - low) / 2:.3f}"


def _how(bounds: Sequence[BoundTerms]) -> str:
    if not bounds:
        return NOT_MEASURED
    images = ", ".join(f"{bound.images:,} {bound.split}" for bound in bounds)
    by = "exact, every t" if bounds[0].method == "exact" else f"estimate, {bounds[0].evals} of T calls an image"
    clip = "clipped" if bounds[0].clip_x0 else "not clipped"
    return f"{by}; {images} images; {bounds[0].decoder} decoder, {clip}"


def _remarks(rows: Sequence[Row], bounds: bool) -> list[str]:
    setup = rows[0].setup
    said = []
    if setup.extractor.name != "inception" or not setup.extractor.verified:
        said.append("Not comparable with published FID and IS: other features.")
    elif setup.samples != PUBLISHED_SAMPLES:
        said.append(
            f"Not comparable with published FIDs, which are of {PUBLISHED_SAMPLES:,} samples: fewer bias it upwards."
        )
    said.append("± of a score is over splits or subsets of one sample set; it says nothing about another training run.")
    said.append(f"Precision and recall: the same features, k = {setup.neighborhood}.")
    if bounds:
        said.append(
            "Bound: of the whole chain, whatever number of steps was sampled in; ± is a 95% interval for the mean over "
            "the data."
        )
    return said


def _origin(row: Row) -> tuple[str, ...]:
    device = row.hardware.get("gpu") or row.hardware.get("processor") or row.hardware.get("device", "")
    software = ", ".join(f"{name} {version}" for name, version in row.versions.items())
    weights = row.setup.model.weights_sha256
    return (
        row.name,
        _how(row.bounds),
        weights,
        str(row.setup.seed),
        device,
        row.created,
        row.git_commit or "an installed package",
        software,
    )


def _flat(row: Row) -> dict[str, object]:
    setup, model = row.setup, row.setup.model
    line: dict[str, object] = {
        "name": row.name,
        **{name: getattr(model, name) for name in type(model).model_fields if name != "identity"},
        "data": setup.data.name,
        "data_sha256": setup.data.sha256,
        "extractor": setup.extractor.name,
        "extractor_verified": setup.extractor.verified,
        "distance": setup.extractor.labels[0],
        "score": setup.extractor.labels[1],
        **setup.model_dump(include={"samples", "seed", "sampling_steps", "clip_x0", "neighborhood", "decoder"}),
        **row.metrics,
    }
    for bound in row.bounds:
        low, high = bound.interval
        line |= {
            f"bound_{bound.split}_{name}": value
            for name, value in {
                "method": bound.method,
                "evals": bound.evals,
                "images": bound.images,
                "low": low,
                "high": high,
            }.items()
        }
    line |= {"device": row.hardware.get("device"), "git_commit": row.git_commit, "created": row.created}
    return line | {f"version_{name}": version for name, version in row.versions.items()}
