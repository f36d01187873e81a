"""How samples are drawn: the settings of a chain, of what its network is told, and of what it is guided by. No torch is imported."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from ddpm_bench.config.limits import MOST_CHANNELS, MOST_CLASSES, MOST_IMAGES, MOST_T
from ddpm_bench.config.networks import Settings

EVEN = "even"
"""The spacing of a strided chain for which none was asked, as of all results that name none."""
SHORT_OF_T = ("ddim-quad", "tau-quadratic")
"""The spacings that leave steps out even where T are asked for."""


BALANCED = "balanced"
"""The classes of samples where nothing else is asked for."""


OF_SAMPLERS = (
    "eta",
    "corrector_steps",
    "snr",
    "corrector_norm",
    "level_steps",
    "step_size",
    "final_denoising",
    "start",
)
"""The settings of sampling that are options of some samplers."""


class SamplingSettings(Settings):
    """How a chain is run: `sampler` by its name in `diffusion/samplers.py`, in so many `steps`, for so many `samples`.

    steps: None is the full chain; fewer is a strided one with re-derived betas. spacing: which steps a strided one visits,
    by its name in `diffusion/spacing.py`. clip_x0: before the mean is taken.
    The others are options of samplers (`OF_SAMPLERS`), None for what the sampler does without being asked. eta: of `ddim`,
    the share of the ancestral step's noise. corrector_steps: Langevin steps before each step of a score sampler, with the
    ratio of signal to noise `snr`, by the norm of each image or the mean of the batch. level_steps, step_size, final_denoising,
    start: of `annealed-langevin`.
    labels: which class each sample is of, by a model that is told classes: "balanced", index modulo their number, or one for all,
    by number; None is balanced. guidance: the scale s of classifier-free guidance, which is 1 + w for the w of Ho and Salimans; 1 is
    none. guidance_channels: so many first channels of the prediction are guided; None for all.
    classifier: of noised images, by which samples are guided: the path of a file of `ddpm-bench classifier train`, or the name of one
    that is trained on the cell's own images (`config/classifiers.py`); before anything is run these become the file's SHA-256, or
    NAME@HASH of what it is trained on. classifier_scale: of its gradient, 1 where a classifier is given; 0 is no guidance.
    gradient_at: x_t, as released, where it is not given, or the mean, as derived.
    augmentation: the level s of the noise in the small images that a super-resolution model enlarges; None is 0, none.
    """

    samples: int = Field(50_000, ge=2, le=MOST_IMAGES)
    sampler: str = "ancestral"
    steps: int | None = Field(None, ge=1, le=MOST_T)
    spacing: str = EVEN
    clip_x0: bool = True
    eta: float | None = Field(None, ge=0, le=1)
    corrector_steps: int | None = Field(None, ge=0, le=1000)
    snr: float | None = Field(None, gt=0, le=100)
    corrector_norm: Literal["image", "batch"] | None = None
    level_steps: int | None = Field(None, ge=1, le=10_000)
    step_size: float | None = Field(None, gt=0, le=1)
    final_denoising: bool | None = None
    start: Literal["uniform", "normal"] | None = None
    labels: Literal["balanced"] | Annotated[int, Field(ge=0, lt=MOST_CLASSES)] | None = None
    guidance: float = Field(1.0, ge=0, le=1000)
    guidance_channels: int | None = Field(None, ge=1, le=MOST_CHANNELS)
    classifier: str | None = Field(None, min_length=1)
    classifier_scale: float | None = Field(None, ge=0, le=10_000)
    gradient_at: Literal["x_t", "mean"] | None = None
    augmentation: int | None = Field(None, ge=0, le=MOST_T)

    @model_validator(mode="after")
    def _of_a_classifier(self) -> "SamplingSettings":
        for name in ("classifier_scale", "gradient_at"):
            if self.classifier is None and (value := getattr(self, name)) is not None:
                raise ValueError(
                    f"{name} = {value} is of a classifier, and none is given; give classifier, or leave it out"
                )
        return self

    @property
    def by_classifier(self) -> bool:
        """Whether samples are guided by a classifier."""
        return self.classifier is not None and self.classifier_scale != 0

    @property
    def gradient(self) -> tuple[float, Literal["x_t", "mean"]]:
        """The scale of the classifier's gradient, and where that is taken."""
        return 1.0 if self.classifier_scale is None else self.classifier_scale, self.gradient_at or "x_t"

    @property
    def guided(self) -> bool:
        """Whether the network is called twice for a prediction, with a class and without."""
        return self.guidance != 1

    def told(self, classes: int) -> dict[str, Any]:
        """What samples of a model that is told so many classes depend on beside, JSON values by name; nothing where it is told none."""
        if not (classes or self.by_classifier):
            return {}
        guidance = {"guidance": self.guidance, "guidance_channels": self.guidance_channels} if self.guided else {}
        return {"labels": BALANCED if self.labels is None else self.labels} | guidance

    @property
    def options(self) -> dict[str, Any]:
        """What is asked of the sampler, by the names of its fields."""
        return {name: value for name in OF_SAMPLERS if (value := getattr(self, name)) is not None}

    def strided(self, T: int) -> bool:
        """Whether not all of the T steps of the chain are visited."""
        return self.steps is not None and (self.steps != T or self.spacing in SHORT_OF_T)

    def spacing_of(self, T: int) -> str:
        """The spacing that results depend on: that of the whole chain, which has none, is called the default's."""
        return self.spacing if self.strided(T) else EVEN
