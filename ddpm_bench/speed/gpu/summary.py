"""One page about a session: what each stage came to, and the goals beside what was measured."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict
from rich import box
from rich.console import Group
from rich.table import Table as RichTable
from rich.text import Text

from ddpm_bench.files import write_json, write_text
from ddpm_bench.records.provenance import git_commit, hardware, versions
from ddpm_bench.report.blocks import Block, Bullets, Heading, Table
from ddpm_bench.report.writers.markdown import to_markdown
from ddpm_bench.runtime.timing import in_words
from ddpm_bench.speed.gpu.goals import Goal, goals
from ddpm_bench.speed.gpu.session import StageResult
from ddpm_bench.speed.gpu.stages import Plan

STAGES, GOALS = ("Stage", "what", "outcome", "took", "remark"), ("Goal on one H200", "goal", "measured", "of")


class SessionSummary(BaseModel):
    """What one call did; `goals` are of all calls with the same folder."""

    model_config = ConfigDict(frozen=True)

    minutes: float
    preset: str
    stages: tuple[StageResult, ...]
    goals: tuple[Goal, ...]
    hardware: dict[str, Any]
    versions: dict[str, str]
    git_commit: str | None
    created: str


def summarise(plan: Plan, results: Sequence[StageResult]) -> SessionSummary:
    """summary.json and summary.md in the plan's folder."""
    found = SessionSummary(
        minutes=plan.minutes,
        preset=plan.preset,
        stages=tuple(results),
        goals=tuple(goals(plan)),
        hardware=hardware(torch.device(plan.device)),
        versions=versions(),
        git_commit=git_commit(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    write_json(plan.out / "summary.json", found.model_dump(mode="json"))
    write_text(plan.out / "summary.md", to_markdown(page(found)))
    return found


def page(summary: SessionSummary) -> list[Block]:
    lines = tuple(_stage(stage) for stage in summary.stages)
    told = tuple(_goal(goal) for goal in summary.goals)
    return [
        Heading(1, _title(summary)),
        Table("Stages", "lllrl", STAGES, lines),
        Heading(2, "Goals"),
        Table("Goals", "lrrl", GOALS, told),
        Bullets(tuple(_notes(summary))),
    ]


def summary_table(summary: SessionSummary) -> Group:
    """The same for the terminal."""
    tables = []
    for title, heads, lines in (
        (_title(summary), STAGES, [_stage(stage) for stage in summary.stages]),
        ("", GOALS, [_goal(goal) for goal in summary.goals]),
    ):
        table = RichTable(title=Text(title), box=box.SIMPLE_HEAD, show_edge=False)
        for head in heads:
            table.add_column(head, justify="right" if head in ("took", "goal", "measured") else "left")
        for line in lines:
            table.add_row(*map(Text, line))
        tables.append(table)
    return Group(*tables, *(Text(f"- {note}") for note in _notes(summary)))


def _title(summary: SessionSummary) -> str:
    facts = summary.hardware
    return f"{summary.minutes:g} minutes on {facts.get('gpu') or facts['processor'] or facts['device']}"


def _stage(stage: StageResult) -> tuple[str, ...]:
    return stage.name, stage.what, stage.outcome, in_words(stage.seconds), stage.why


def _goal(goal: Goal) -> tuple[str, ...]:
    measured = "not measured" if goal.measured is None else f"{goal.measured:,.4g}"
    return goal.what, f"{goal.goal:,g}", measured, goal.by


def _notes(summary: SessionSummary) -> Iterator[str]:
    if summary.preset not in ("paper", "h200"):
        yield f"The goals are of the paper's network, and the numbers of preset {summary.preset}."
    if "gpu" not in summary.hardware:
        yield "The goals are of a GPU, and the numbers of none."
    if any(stage.outcome in ("stopped", "not begun") for stage in summary.stages):
        yield "The same command goes on with what was stopped or not begun."
