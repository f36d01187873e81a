"""What sources printed and claimed, and what it depends on: the types of grid files and of `ablations/published`."""

from collections.abc import Mapping
from decimal import Decimal
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError, field_validator, model_validator

from ddpm_bench.config.limits import MOST_T
from ddpm_bench.config.metrics import METRICS
from ddpm_bench.config.networks import Settings
from ddpm_bench.config.settings import CellSettings, section_of
from ddpm_bench.config.values import Count, Frozen, first_fault
from ddpm_bench.errors import near_miss


def _checked(section: str, name: str, values: Mapping[str, Any]) -> Any:
    """The value of `name` as the settings hold it; ValueError for one that they could not hold."""
    sections = CellSettings.model_fields
    if section not in sections:
        raise ValueError(f"there is no section '{section}' of settings{near_miss(section, list(sections))}")
    kind, value = section_of(section, values), values[name]
    if name not in kind.model_fields:
        raise ValueError(f"there is no setting '{section}.{name}'{near_miss(name, list(kind.model_fields))}")
    try:
        return _adapter(kind, name).validate_python(kind.meant(name, value))
    except ValidationError as error:
        raise ValueError(first_fault(error, f"{section}.{name}")) from None


@cache
def _adapter(kind: type[Settings], name: str) -> TypeAdapter[Any]:
    """Of one setting, made once: a grid checks some hundred values."""
    return TypeAdapter(kind.model_fields[name].rebuild_annotation())


def _exist(settings: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {section: {name: _checked(section, name, values) for name in values} for section, values in settings.items()}


Sections = Annotated[dict[str, dict[str, Any]], AfterValidator(_exist)]
"""Some settings, by section and name as in `CellSettings`; "none" stands for no value."""


class PublishedCost(Frozen):
    """What a source says of a model's size and of its times, which are those of its own `hardware`.

    gflops: of one prediction, of whatever it calls so. epoch_s, image_s: seconds for training on every image once, and for sampling one.
    """

    parameters: Count | None = None
    gflops: float | None = None
    epoch_s: float | None = None
    image_s: float | None = None
    hardware: str = ""

    @model_validator(mode="after")
    def _times_are_of_a_machine(self) -> "PublishedCost":
        if not self.hardware and (self.epoch_s is not None or self.image_s is not None):
            raise ValueError("times are of a machine, so 'hardware' must say which")
        return self

    @property
    def texts(self) -> dict[str, str]:
        """As tables print them, empty where the source says nothing."""
        return {
            "parameters": "" if self.parameters is None else f"{self.parameters:,}",
            "gflops": "" if self.gflops is None else f"{self.gflops:.2f}",
            "epoch": "" if self.epoch_s is None else f"{self.epoch_s:g}",
            "image": "" if self.image_s is None else f"{self.image_s:g}",
            "hardware": self.hardware,
        }


class Published(Frozen):
    """The numbers that a source printed for a row. `blank`: a dash for IS and FID, so these are None.

    is_std: the source's own spread, over splits of one sample set. fid: to the training set, in so many digits behind the point as
    it was printed with; fid_test to the test set. sfid, precision, recall: to the training set, too.
    nll_test, nll_train: bits/dim; upper bounds where `nll_bound`. nll_source: where they stand, if elsewhere.
    nll_ode: bits/dim of test images by the probability flow ODE, which is no bound. nll_ode_source: likewise.
    bold: the numbers that it printed in bold.
    """

    is_mean: float | None = None
    is_std: float | None = None
    fid: float | None = None
    fid_digits: int = 2
    fid_test: float | None = None
    sfid: float | None = None
    precision: float | None = Field(None, ge=0, le=1)
    recall: float | None = Field(None, ge=0, le=1)
    nll_test: float | None = None
    nll_train: float | None = None
    nll_bound: bool = False
    nll_source: str | None = None
    nll_ode: float | None = None
    nll_ode_source: str | None = None
    cost: PublishedCost | None = None
    blank: bool = False
    bold: tuple[Literal["is_mean", "fid", "nll_test"], ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _as_printed(cls, value: Any) -> Any:
        fid = value.get("fid") if isinstance(value, dict) else None
        return value | {"fid_digits": -int(fid.as_tuple().exponent)} if isinstance(fid, Decimal) else value

    @model_validator(mode="after")
    def _bold_is_printed(self) -> "Published":
        for name in self.bold:
            if getattr(self, name) is None:
                raise ValueError(f"bold names '{name}', which the row does not have")
        return self

    def of(self, key: str) -> float | None:
        """The number published for the metric `key`, if there is one."""
        metric = METRICS.get(key)
        return getattr(self, metric.published) if metric and metric.published else None

    def error_of(self, key: str) -> float | None:
        """What was printed after the metric's ±, which is over splits of one sample set, if anything was."""
        return self.of(METRICS[key].error)

    @property
    def beside_fid(self) -> dict[str, float | None]:
        """What newer tables have beside it, by field."""
        return {"sfid": self.sfid, "precision": self.precision, "recall": self.recall}

    @property
    def has_scores(self) -> bool:
        return self.blank or self.is_mean is not None or self.fid is not None

    @property
    def has_nll(self) -> bool:
        return self.nll_test is not None or self.nll_train is not None

    @property
    def has_likelihood(self) -> bool:
        """A bound, or a likelihood by the ODE."""
        return self.has_nll or self.nll_ode is not None

    @property
    def texts(self) -> dict[str, str]:
        """As tables print them: IS ± spread, FID in as many digits as it was printed with, NLL test (train), cost."""
        score = "" if self.is_mean is None else f"{self.is_mean:.2f}"
        test = "" if self.nll_test is None else f"{self.nll_test:.2f}"
        train = "" if self.nll_train is None else f" ({self.nll_train:.2f})"
        return {
            "is": score if self.is_std is None else f"{score} ± {self.is_std:.2f}",
            "fid": "" if self.fid is None else f"{self.fid:.{self.fid_digits}f}",
            **{name: "" if value is None else f"{value:.2f}" for name, value in self.beside_fid.items()},
            "nll": f"{'≤ ' if self.nll_bound else ''}{test}{train}",
            "nll_ode": "" if self.nll_ode is None else f"{self.nll_ode:.2f}",
            **(self.cost or PublishedCost()).texts,
        }


class NllConditions(Frozen):
    """What published bounds depend on beyond what all the numbers do; None where the source does not say.

    evals: network calls an image.
    """

    test_images: Count | None = None
    train_images: Count | None = None
    evals: Count | None = None
    clip_x0: bool | None = None
    decoder: Literal["exact", "paper"] | None = None


class OdeConditions(Frozen):
    """What published likelihoods by the ODE depend on beyond what all the numbers do (see `likelihood/ode.py`).

    None where the source does not say. checkpoint: theirs, where it is another than that of the scores.
    """

    images: Count | None = None
    draws: Count | None = None
    dequantisation: Literal["level", "released"] | None = None
    sigma_0: float | None = None
    rtol: float | None = None
    atol: float | None = None
    checkpoint: Literal["last", "lowest FID during training"] | None = None


class Conditions(Frozen):
    """What the published numbers depend on; the report computes the differences from a record's own.

    What is None is not stated by the source, and then not compared; the report says so, unless a cell's own settings say it
    (`training.steps`, `sampling.steps`). data_sha256: of the prepared
    pixels, as in a record. weights: the moving average's or those of the last step. quantisation: of the samples before
    they are scored. reference_images: behind precision and recall. settings: by section and name (see `settings.py`), as far as
    the source says them; "none" stands for no value.
    """

    data: str
    data_sha256: str | None = None
    size: Count
    weights: Literal["ema", "raw"] | None = None
    quantisation: str | None = None
    samples: Count
    reference_images: Count | None = None
    training_steps: Count | None = None
    sampling_steps: Count | None = None
    extractor: str
    checkpoint: Literal["last", "lowest FID during training"] | None = None
    nll: NllConditions | None = None
    ode: OdeConditions | None = None
    settings: Sections = Field(default_factory=dict)


class CodingPoint(Frozen):
    """After `steps` reverse steps: `rate` bits/dim were sent, and the prediction is off by `rmse`, of pixels 0..255."""

    steps: int = Field(ge=1, le=MOST_T)
    rate: float
    rmse: float


class Coding(Frozen):
    """A published progressive code: of the model with these axes; rate and distortion in bits/dim of the whole code."""

    source: str
    data: tuple[str, ...] = Field(min_length=1)
    label: str
    axes: dict[str, str]
    T: int = Field(ge=1, le=MOST_T)
    rate: float
    distortion: float
    points: tuple[CodingPoint, ...] = Field(min_length=1)

    def is_of(self, diffusion: Mapping[str, Any]) -> bool:
        """Whether it is of a model with these settings of diffusion."""
        return all(diffusion.get(name) == value for name, value in self.axes.items())

    @property
    def table(self) -> "PublishedTable":
        """The code as a table, for listings."""
        rows = [
            QuotedRow(
                label=f"{point.steps} of {self.T} reverse steps",
                values={"rate": Decimal(f"{point.rate:.5f}"), "rmse": Decimal(f"{point.rmse:.5f}")},
            )
            for point in self.points
        ]
        return PublishedTable(
            title=f"Progressive lossy code, {self.label}",
            source=self.source,
            data=self.data,
            columns={"rate": "rate, bits/dim", "rmse": "RMSE, pixels 0..255"},
            notes=(f"The whole code: rate {self.rate} and distortion {self.distortion} bits/dim.",),
            rows=tuple(rows),
        )


class Claim(Frozen):
    """What a source says of the order of its rows; the report tests it on measured numbers (`report/claims.py`).

    Either `better` is better than every cell of `worse` in every metric, or the two cells `alike` differ in none of
    them by more than `margin`, a share of the second cell's value. The margin is the grid file's: sources name none.
    """

    text: str
    source: str
    metrics: tuple[str, ...] = Field(min_length=1)
    better: str | None = None
    worse: tuple[str, ...] = ()
    alike: tuple[str, str] | None = None
    margin: float | None = Field(None, gt=0, lt=1)

    @field_validator("metrics")
    @classmethod
    def _known(cls, metrics: tuple[str, ...]) -> tuple[str, ...]:
        for metric in metrics:
            if metric not in METRICS:
                raise ValueError(f"there is no metric '{metric}'{near_miss(metric, list(METRICS))}")
        return metrics

    @model_validator(mode="after")
    def _one_form(self) -> "Claim":
        ordered = self.better is not None and bool(self.worse)
        if ordered == (self.alike is not None) or (self.margin is None) != (self.alike is None):
            raise ValueError("a claim has either 'better' and 'worse', or 'alike' and its 'margin'")
        return self

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The cells that it sets against each other: (better, worse), or the two that are alike."""
        return [self.alike] if self.alike else [(self.better or "", worse) for worse in self.worse]


Printed = Decimal | tuple[Decimal, Decimal] | str
"""An entry as it was printed, its digits kept: a number, a number with its ±, or words."""


class QuotedRow(Frozen):
    """A row of a published table; `values` by column, those that the source leaves empty missing."""

    group: str = ""
    label: str
    note: str = ""
    values: dict[str, Printed]


class PublishedTable(Frozen):
    """A published table without a grid. `data`: the sets of images that it concerns, as records name their source.

    second_hand: transcribed from another text than the source itself. columns: heading by key, in order.
    """

    title: str
    source: str
    second_hand: bool = False
    data: tuple[str, ...] = Field(min_length=1)
    columns: dict[str, str] = Field(min_length=1)
    notes: tuple[str, ...] = ()
    rows: tuple[QuotedRow, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _columns_exist(self) -> "PublishedTable":
        for row in self.rows:
            for key in row.values:
                if key not in self.columns:
                    raise ValueError(f"row '{row.label}': there is no column '{key}'{near_miss(key, self.columns)}")
        return self

    @property
    def origin(self) -> str:
        """The source, and whether the numbers come from it at first hand."""
        return in_words(self.source, self.second_hand)

    def texts(self, row: QuotedRow) -> list[str]:
        """The row's entries as they were printed, empty where the source says nothing."""
        return [printed(row.values[key]) if key in row.values else "" for key in self.columns]


def in_words(source: str, second_hand: bool) -> str:
    """The source, and whether what is quoted comes from it at first hand."""
    return f"{source}; second-hand transcription" if second_hand else source


def printed(value: Printed) -> str:
    """7.89, or 9.475 ± 0.174."""
    return f"{value[0]} ± {value[1]}" if isinstance(value, tuple) else str(value)
