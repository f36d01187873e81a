"""What `ddpm-bench speed` measured. Times are in seconds, FLOPs count a multiplication and an addition as two."""

from statistics import median
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, computed_field

Precision = Literal["float32", "tf32", "bfloat16"]
"""tf32 lets a GPU round the factors of float32 products to 10 bits; bfloat16 is autocast over float32 weights."""
Work = Literal["training", "sampling", "bound"]
WORKS: dict[Work, str] = {"training": "Training steps", "sampling": "Sampling steps", "bound": "Terms of the bound"}


class SpeedPart(BaseModel):
    model_config = ConfigDict(frozen=True)


class Ratio(SpeedPart):
    """How many times as fast ours is: the median over rounds, and the interval [low, high] that holds the true median
    with probability `coverage`, whatever the distribution of times."""

    median: float
    low: float
    high: float
    coverage: float


class Peak(SpeedPart):
    """The fastest that this machine was seen to multiply matrices and to convolve with 3x3 kernels, in FLOP/s."""

    precision: Precision
    matmul: float
    convolution: float


class Timing(SpeedPart):
    """One contender at one kind of work.

    seconds: a call with `batch` images, one entry a round. flops: an image. memory: bytes that a call needs beside what
    is held between calls; None where the system does not tell. compile_seconds: of the first call, where it compiled.
    peak: of convolutions at the same precision, in FLOP/s; 0 before it is known. ours: how many times as fast ours is;
    None for ours itself.
    """

    work: Work
    contender: str
    equal_work: bool
    precision: Precision
    batch: int
    seconds: tuple[float, ...]
    flops: float
    memory: int | None
    compile_seconds: float | None
    peak: float = 0.0
    ours: Ratio | None

    @computed_field
    @property
    def images_per_s(self) -> float:
        """Median over the rounds."""
        return self.batch / median(self.seconds)

    @computed_field
    @property
    def flops_per_s(self) -> float:
        return self.flops * self.images_per_s

    @computed_field
    @property
    def peak_fraction(self) -> float:
        """Of the convolution peak."""
        return self.flops_per_s / self.peak if self.peak else 0.0


class Together(SpeedPart):
    """So many processes with so many threads each, at one kind of work on one device. rates: images/s of all of them, one
    entry a round."""

    work: Work
    contender: str
    precision: Precision
    processes: int
    threads: int
    batch: int
    rates: tuple[float, ...]

    @computed_field
    @property
    def images_per_s(self) -> float:
        """Median over the rounds."""
        return median(self.rates)


class Phase(SpeedPart):
    """A phase of a cell: seconds by part, as measured, and what the preset's whole phase would take at this speed."""

    name: str
    parts: dict[str, float]
    cell_seconds: float

    def share(self, *parts: str) -> float:
        """Share, 0 to 1, of these parts."""
        return sum(self.parts.get(part, 0.0) for part in parts) / sum(self.parts.values())


COUNTED = ("network", "loss and backward", "optimizer and average")
"""The parts that the time should go to."""


class Speed(SpeedPart):
    """Everything that one call measured. `missing`: by peer, how it is installed. `remarks` go with the numbers."""

    preset: str
    parameters: int
    shape: tuple[int, int, int]
    repeats: int
    rows: tuple[Timing, ...]
    peaks: tuple[Peak, ...]
    together: tuple[Together, ...] = ()
    phases: tuple[Phase, ...]
    missing: dict[str, str]
    remarks: tuple[str, ...]
    hardware: dict[str, Any]
    versions: dict[str, str]
    git_commit: str | None
    created: str

    @property
    def parts(self) -> list[str]:
        """Of all phases: the counted ones first, then the others in order of appearance."""
        return list(dict.fromkeys([*COUNTED, *(part for phase in self.phases for part in phase.parts)]))

    @computed_field
    @property
    def counted_share(self) -> float | None:
        """Share of the time of training, sampling and bounds, 0 to 1, that goes to network, loss and optimizer."""
        phases = [phase for phase in self.phases if phase.name != "scoring"]
        total = sum(phase.cell_seconds for phase in phases)
        return sum(phase.share(*COUNTED) * phase.cell_seconds for phase in phases) / total if total else None
