"""The resolved configuration of one cell: everything that a result depends on, as typed, frozen values.

Names (of a schedule, an objective, ...) are checked against their tables where they become objects, in `build.py`;
here are shapes, ranges and the rules between fields. No torch is imported.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator

from ddpm_bench.config.cascade import CascadeSettings
from ddpm_bench.config.limits import LEAST_SIDE, MOST_IMAGES, MOST_SIDE, MOST_STEPS, MOST_T
from ddpm_bench.config.networks import NETWORKS, AnyNetworkSettings, Settings, UNetSettings
from ddpm_bench.config.resizing import OLDER, Older, Resize
from ddpm_bench.config.sampling import EVEN, SamplingSettings
from ddpm_bench.config.values import first_fault
from ddpm_bench.errors import UserError


class DataSettings(Settings):
    """Where the images come from. `size` is their side in pixels; `resize` is how others are brought to it, None: not at all.

    averaged_from: a side that is a multiple of `size`: `resize` brings images to that, and they are averaged from there, as a
    cascade's small images are, which a model below it learns; None: images are brought to `size` at once.
    """

    source: str = Field("embedded", min_length=1)
    name: str | None = Field(None, min_length=1)
    size: int = Field(32, ge=LEAST_SIDE, le=MOST_SIDE)
    resize: Resize | Older | None = None
    averaged_from: int | None = Field(None, ge=LEAST_SIDE, le=MOST_SIDE)
    # Where files lie on this machine changes no number, so it is not part of a record.
    root: Path | None = Field(None, exclude=True)

    @model_validator(mode="after")
    def _averaged_in_whole_blocks(self) -> "DataSettings":
        if self.averaged_from is not None and (self.averaged_from % self.size or self.averaged_from == self.size):
            raise ValueError(
                f"averaged_from = {self.averaged_from} is no multiple of size = {self.size}, twice it or more; give one, or leave it out"
            )
        return self


GEOMETRIC = "geometric"
"""The schedule that is given by its sigmas, of NCSN; all others are given by their betas."""


class NoiseSettings(Settings):
    """What x_t is of an image: the forward process, how the network is told the time, and what x_0 is.

    beta_1, beta_T: the ends of the schedules of beta. sigma_1, sigma_T: those of the schedule `geometric`, 0.01 and 1 where they
    are not given, in units of x_0; a process with this schedule is NCSN's, whose network is told x_0 + sigma_t z.
    codec: what x_0 is of an image (`data/codec.py`). "autoencoder:PATH" becomes "autoencoder" before anything is run.
    autoencoder: the SHA-256 of the codec's autoencoder (`data/autoencoders.py`), where it has one.
    `rescale_timesteps`: the network is told t * 1000 / T of the 0-based t, as an option of improved-diffusion does.
    """

    schedule: str = "linear"
    T: int = Field(1000, ge=2, le=MOST_T)
    beta_1: float = Field(1e-4, gt=0, lt=1)
    beta_T: float = Field(0.02, gt=0, lt=1)
    sigma_1: float | None = Field(None, gt=0, le=1e4)
    sigma_T: float | None = Field(None, gt=0, le=1e4)
    rescale_timesteps: bool = False
    codec: str = "pixels"
    autoencoder: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")

    @property
    def noise(self) -> "NoiseSettings":
        """These alone, of settings that say more."""
        return NoiseSettings(**{name: getattr(self, name) for name in NoiseSettings.model_fields})

    @property
    def ends(self) -> tuple[float, float]:
        """The two ends that the schedule runs between."""
        if self.schedule != GEOMETRIC:
            return self.beta_1, self.beta_T
        return self.sigma_1 or 0.01, self.sigma_T or 1.0

    @property
    def unused(self) -> dict[str, float]:
        """The betas that are not the defaults and that a schedule of betas has no use for: presets give them to every schedule."""
        names = {"cosine": ("beta_1", "beta_T"), "constant": ("beta_1",)}.get(self.schedule, ())
        given = {name: getattr(self, name) for name in names}
        return {name: value for name, value in given.items() if value != NoiseSettings.model_fields[name].default}

    @model_validator(mode="after")
    def _ends_of_the_schedule(self) -> Self:
        kind, unused = ("beta", ("sigma_1", "sigma_T"))
        if self.schedule == GEOMETRIC:
            kind, unused = ("sigma", ("beta_1", "beta_T"))
        for name in unused:
            if (value := getattr(self, name)) != NoiseSettings.model_fields[name].default:
                raise ValueError(
                    f"{name} = {value:g} is not used by the schedule '{self.schedule}'; give {kind}_1 and {kind}_T, or leave it out"
                )
        return self


class ProcessSettings(NoiseSettings):
    """What a network's output means: the noise that it is trained on, what is predicted, and the variance.

    `variance = "fixed"` stands for `fixed_variance`: the paper found beta_t and beta-tilde_t to give similar results.
    """

    parameterization: str
    variance: str
    fixed_variance: str = "fixed-beta"


class DiffusionSettings(ProcessSettings):
    """A process and what it is trained with: together the three axes of Table 2."""

    objective: str


def _no_limit(clip: Any) -> Any:
    """None for what older records and presets took instead."""
    return None if clip == 1e9 else clip


class TrainingSettings(Settings):
    """Adam with linear warm-up, gradient clipping and EMA. `ema_ramp` uses min(ema_decay, (1+step)/(10+step)).

    clip: the norm to which longer gradients are cut down; None: they are taken as they are.
    label_dropout: the probability with which an image's class is not told, each image by itself (p_uncond of Ho, Salimans 2022).
    blur: half of the small images that a network enlarges are blurred (`diffusion/augmentation.py`).
    """

    steps: int = Field(800_000, ge=1, le=MOST_STEPS)
    batch: int = Field(128, ge=1, le=100_000)
    learning_rate: float = Field(2e-4, gt=0)
    warmup: int = Field(5000, ge=0, le=MOST_STEPS)
    clip: Annotated[float | None, BeforeValidator(_no_limit)] = Field(1.0, gt=0)
    ema_decay: float = Field(0.9999, ge=0, lt=1)
    ema_ramp: bool = False
    flips: bool = True
    label_dropout: float = Field(0.0, ge=0, lt=1)
    blur: bool = False
    checkpoint_every: int = Field(5000, ge=1, le=MOST_STEPS)
    log_every: int = Field(100, ge=1, le=MOST_STEPS)
    snapshot_every: int | None = Field(None, ge=1, le=MOST_STEPS)

    @property
    def longest_gradient(self) -> float:
        """The norm that no gradient exceeds once it is clipped."""
        return math.inf if self.clip is None else self.clip


Quality = Literal["density", "copies", "spatial", "mmd"]
"""What may be measured of samples beyond their score, their distances, precision and recall: `metrics/quality.py`."""


class ScoringSettings(Settings):
    """With what samples are scored, and how the bound is measured.

    `extractor`: inception, efficientnet-lite0, embedded, or the path of one made by `ddpm-bench extractor train`.
    `quality`: what is measured beside: "density" (and coverage), "copies" (of training images), "spatial" (the distance of
    features that know where things are), "mmd" (with a Gaussian kernel). `neighborhood`: k of precision and recall;
    `density_neighborhood`: that of density and coverage.
    `bound_images`: how many test images, and as many training images, have their variational bound measured at the end of
    training; 0 for none. `bound_evals`: by so many network calls an image, or with every t where it is None.
    `bound_of`: the whole chain, however the model is sampled, or the strided chain that is sampled, a model of its own.
    `ode_images`: how many test images have their likelihood measured by the probability flow ODE (`likelihood/ode.py`), in
    `ode_draws` draws each; 0 for none.
    `terms_images`: beside such an estimate, so many test images are measured with every t, for the terms and the error of
    x_0 by t; 0 for none.
    `bootstrap`: replicates behind the intervals of scores and bounds (`metrics/uncertainty.py`); 0 for no intervals.
    `neighbours`: so many samples are shown beside the training images nearest to them; 0 for none.
    """

    extractor: str = Field("inception", min_length=1)
    test_reference: bool = False
    precision_recall: bool = True
    neighborhood: int = Field(3, ge=1, le=1000)
    quality: tuple[Quality, ...] = ()
    density_neighborhood: int = Field(5, ge=1, le=1000)
    bound_images: int = Field(10_000, ge=0, le=MOST_IMAGES)
    bound_evals: int | None = Field(None, ge=5, le=MOST_T)
    bound_of: Literal["whole chain", "sampled chain"] = "whole chain"
    terms_images: int = Field(0, ge=0, le=MOST_IMAGES)
    ode_images: int = Field(0, ge=0, le=MOST_IMAGES)
    ode_draws: int = Field(2, ge=1, le=1000)
    decoder: Literal["exact", "paper"] = "exact"
    bootstrap: int = Field(200, ge=0, le=100_000)
    neighbours: int = Field(8, ge=0, le=1000)

    @property
    def density_k(self) -> int | None:
        """The k of density and coverage; None where they are not measured."""
        return self.density_neighborhood if "density" in self.quality else None

    @field_validator("quality")
    @classmethod
    def _once(cls, names: tuple[Quality, ...]) -> tuple[Quality, ...]:
        """In one order, each once: which were asked for is what results depend on."""
        return tuple(name for name in get_args(Quality) if name in names)

    @field_validator("bound_images", "terms_images", "ode_images")
    @classmethod
    def _more_than_one(cls, value: int) -> int:
        if value == 1:
            raise ValueError("1 image gives a mean without an error; use 2 or more, or 0 for no bound")
        return value

    @field_validator("bootstrap")
    @classmethod
    def _enough(cls, value: int) -> int:
        if 0 < value < 40:
            raise ValueError(f"{value} replicates have no quantile at 2.5%; use 40 or more, or 0 for no intervals")
        return value


class CellSettings(Settings):
    """One cell of a grid, resolved: grid file, then preset, then --set, in this order."""

    data: DataSettings
    diffusion: DiffusionSettings
    network: AnyNetworkSettings
    training: TrainingSettings
    sampling: SamplingSettings
    scoring: ScoringSettings
    cascade: CascadeSettings = CascadeSettings()

    @property
    def stages(self) -> tuple["CellSettings", ...]:
        """The settings of the models below, the lowest first: the cell's own, but of smaller images, and what each has otherwise.

        The lowest enlarges nothing. ValueError, which names the model, for settings that cannot be.
        """
        found: list[CellSettings] = []
        small = None
        for side in self.cascade.below:
            values = self.model_dump(mode="json", exclude={"cascade"})
            values["data"] |= {"size": side, "averaged_from": self.data.size}
            values["network"] |= {"small": small} | ({} if small else {"augmentation": 0})
            values["training"] |= {} if small else {"blur": False}
            values["sampling"] |= {} if small else {"augmentation": None}
            for section, otherwise in self.cascade.otherwise.get(str(side), {}).items():
                values[section] |= otherwise
            try:
                found.append(CellSettings.model_validate(values))
            except ValidationError as error:
                raise ValueError(f"cascade.below, the model of side {side}: {first_fault(error)}") from error
            small = side
        return tuple(found)

    @model_validator(mode="after")
    def _cascade_chains(self) -> "CellSettings":
        if not self.cascade.below:
            return self
        side, small = self.cascade.below[-1], self.network.told_small
        if side != small:
            raise ValueError(
                f"cascade.below ends with images of side {side}, and network.small = {small}; give network.small = {side}, or a model of "
                "that side below"
            )
        if self.scoring.bound_images or self.scoring.ode_images:
            raise ValueError(
                "a cascade has no bound in bits/dim, nor a likelihood; give scoring.bound_images = 0 and scoring.ode_images = 0"
            )
        _ = self.stages
        return self

    @model_validator(mode="after")
    def _fit_together(self) -> "CellSettings":
        if self.diffusion.codec == "pixels":  # what another makes of a side is known where it is built
            try:
                self.network.check(self.data.size)
            except UserError as error:
                raise ValueError(f"at data.size = {self.data.size}: {error}") from error
        if self.sampling.steps is not None and self.sampling.steps > self.diffusion.T:
            raise ValueError(f"sampling.steps = {self.sampling.steps} exceeds diffusion.T = {self.diffusion.T}")
        if self.sampling.spacing != EVEN and not self.sampling.strided(self.diffusion.T):
            raise ValueError(
                f"sampling.spacing = {self.sampling.spacing} is of a chain of fewer steps; give sampling.steps below "
                f"diffusion.T = {self.diffusion.T}, or leave it out"
            )
        dropout, no_class = self.training.label_dropout, self.network.no_class
        if dropout and no_class is None:
            raise ValueError(
                f"training.label_dropout = {dropout:g} leaves labels out, and the network has no label for that; give "
                "network.classes and network.null_class=true, or leave it out"
            )
        if no_class is not None and not dropout:
            raise ValueError(
                "network.null_class = true is a label that nothing would train; give training.label_dropout, such as 0.1, or leave it "
                "out"
            )
        self._check_small()
        every = self.training.snapshot_every
        if every is not None and every > self.training.steps:
            raise ValueError(f"training.snapshot_every = {every} exceeds training.steps = {self.training.steps}")
        return self

    def _check_small(self) -> None:
        """What is said of a small image is of one that there is."""
        small, levels = self.network.told_small, self.network.told_levels
        if small is None and self.training.blur:
            raise ValueError(
                "training.blur = true is of the small images that a network enlarges; give network.small, or leave it out"
            )
        if small is not None and self.diffusion.codec != "pixels":
            raise ValueError(
                f"network.small = {small} is of pixels, and diffusion.codec = {self.diffusion.codec} makes x_0 of something else; "
                "use the codec 'pixels'"
            )
        if levels > self.diffusion.T:
            raise ValueError(
                f"network.augmentation = {levels} exceeds diffusion.T = {self.diffusion.T}, of whose steps it is one"
            )


def section_of(name: str, values: Mapping[str, Any]) -> type[Settings]:
    """The settings that hold the section `name` of `CellSettings`: for the network, those of the kind in `values`."""
    if name == "network":
        return NETWORKS.get(str(values.get("kind", "unet")), UNetSettings)
    section = CellSettings.model_fields[name].annotation
    assert isinstance(section, type) and issubclass(section, Settings), f"'{name}' is no section"
    return section


def completed(values: Mapping[str, Any]) -> dict[str, Any]:
    """JSON values that hold sections of `CellSettings`, or the `process` of a model card, with the defaults of what these
    gained since they were written."""
    sections: dict[str, Any] = {}
    for name, held in as_written(values).items():
        if isinstance(held, Mapping) and (name in CellSettings.model_fields or name == "process"):
            kind = ProcessSettings if name == "process" else section_of(name, held)
            sections[name] = kind.model_validate(held).model_dump(mode="json")
    return {**values, **sections}


def as_written(values: Any) -> Any:
    """JSON values that hold the section `data`, with what they meant when they were written: images of another size were
    fitted unasked before `data.resize` was there."""
    data = values.get("data") if isinstance(values, Mapping) else None
    if not isinstance(data, Mapping) or "resize" in data:
        return values
    return {**values, "data": {**data, "resize": OLDER}}
