"""What was hoped for on one H200, for the paper's network, and what was measured of it."""

from pydantic import BaseModel, ConfigDict

from ddpm_bench.speed.gpu.stages import Plan
from ddpm_bench.speed.peers import OURS, Diffusers
from ddpm_bench.speed.result import Timing, Work

TRAINING, SAMPLING_MINUTES, TIMES_AS_FAST = 5000.0, 6.0, 3.0
SAMPLES, STEPS = 10_000, 1000


class Goal(BaseModel):
    """`measured` is None where the stage that shows it has not ended. by: the contender that it was measured of."""

    model_config = ConfigDict(frozen=True)

    what: str
    goal: float
    measured: float | None
    by: str = ""


def goals(plan: Plan) -> list[Goal]:
    """In the order in which they are told. The fastest of ours counts, in any precision, compiled or not."""
    training, sampling = (_fastest(plan, work) for work in ("training", "sampling"))
    minutes = SAMPLES * STEPS / sampling.images_per_s / 60 if sampling else None
    return [
        Goal(
            what="training, images/s", goal=TRAINING, measured=training.images_per_s if training else None,
            by=_name(training),
        ),
        Goal(what=f"{SAMPLES:,} samples of {STEPS} steps, minutes", goal=SAMPLING_MINUTES, measured=minutes, by=_name(sampling)),
        _beside(plan, "training", training),
        _beside(plan, "sampling", sampling),
    ]  # fmt: skip


def _rows(plan: Plan, work: Work) -> list[Timing]:
    speed = plan.timed(work)
    return list(speed.rows) if speed else []


def _fastest(plan: Plan, work: Work) -> Timing | None:
    ours = [row for row in _rows(plan, work) if row.contender.startswith(OURS.name)]
    return max(ours, key=lambda row: row.images_per_s, default=None)


def _beside(plan: Plan, work: Work, ours: Timing | None) -> Goal:
    theirs = [row for row in _rows(plan, work) if (row.contender, row.precision) == (Diffusers.name, "float32")]
    ratio = ours.images_per_s / theirs[0].images_per_s if ours and theirs else None
    return Goal(what=f"{work}, times diffusers' eager float32", goal=TIMES_AS_FAST, measured=ratio, by=_name(ours))


def _name(row: Timing | None) -> str:
    return f"{row.contender} in {row.precision}" if row else ""
