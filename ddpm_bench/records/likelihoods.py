"""What is known of a model's likelihood, in bits/dim: the variational bound with its terms, and the likelihood by the ODE."""

import math
from statistics import NormalDist
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from ddpm_bench.config.limits import MOST_IMAGES, MOST_T
from ddpm_bench.config.values import Count
from ddpm_bench.records.fields import Interval, SquaredErrors
from ddpm_bench.records.part import Part


class BoundTerms(Part):
    """The variational bound of a split in bits/dim: total = prior + middle + first.

    `exact`: every t for every image, so `evals` = T network calls an image. `estimate`: see `likelihood/estimate.py`; no single terms.
    """

    split: Literal["train", "test"]
    images: Annotated[int, Field(ge=1, le=MOST_IMAGES)]
    method: Literal["exact", "estimate"] = "exact"
    evals: Annotated[int, Field(ge=1, le=MOST_T)]
    steps: Annotated[int, Field(ge=1, le=MOST_T)] | None = None  # of a strided chain, whose bound it is
    clip_x0: bool = True
    decoder: Literal["exact", "paper"] = "exact"
    total: float
    standard_error: float  # of the total, the images taken as a sample of the data; holds the estimate's own error too
    estimate_error: float = 0.0  # of the total against `exact` on the same images: both draw noise
    own_error: float | None = None  # what the estimate's draws add to standard_error; None in older records
    prior: float  # L_T
    middle: float  # L_1 + ... + L_{T-1}
    first: float  # L_0, the decoder's
    terms: tuple[float, ...] = ()  # terms[t-1] is L_{t-1}
    mse: SquaredErrors = ()  # mse[t-1]: mean squared error of the x_0 predicted at t, for images in [-1, 1]
    quantiles: Interval = ()  # of the total at QUANTILES, by a bootstrap over the images

    @property
    def sampling_error(self) -> float:
        """Standard error of the images alone as a sample of the data; of an exact bound, `standard_error` as it is.

        Older records of estimates do not hold the `own_error` to take off. Its square is at least a third of
        `estimate_error`'s, which held L_0's noise three times where `own_error` holds it once; so much is taken off, and
        the result is an upper end.
        """
        own = self.estimate_error**2 / 3 if self.own_error is None else self.own_error**2
        return max(self.standard_error**2 - own, 0.0) ** 0.5

    @property
    def interval(self) -> tuple[float, float]:
        """95%, for the mean over the data that the images are a sample of."""
        half = NormalDist().inv_cdf(0.975) * self.standard_error
        return self.total - half, self.total + half

    @model_validator(mode="before")
    @classmethod
    def _of_schema_1(cls, value: Any) -> Any:
        if isinstance(value, dict) and "first" not in value and value.get("terms"):
            first, *middle = value["terms"]
            return value | {"evals": len(value["terms"]), "first": first, "middle": math.fsum(middle)}
        return value

    @model_validator(mode="after")
    def _a_term_a_step(self) -> "BoundTerms":
        if self.terms and (self.method == "estimate" or len(self.terms) != self.evals):
            raise ValueError(f"terms: there are {len(self.terms)} for {self.evals} network calls, {self.method}")
        if len(self.mse) not in (0, len(self.terms)):
            raise ValueError(f"mse: there are {len(self.mse)} beside {len(self.terms)} terms")
        return self


def _one_a_split(bounds: tuple[BoundTerms, ...]) -> tuple[BoundTerms, ...]:
    if len({bound.split for bound in bounds}) < len(bounds):
        raise ValueError("there are two bounds of one split")
    return bounds


Bounds = Annotated[tuple[BoundTerms, ...], AfterValidator(_one_a_split)]
"""At most one a split."""


class OdeLikelihood(Part):
    """-log p of test or training images by the probability flow ODE, in bits/dim: total = prior + flow. No variational bound."""

    split: Literal["train", "test"]
    images: Annotated[int, Field(ge=1, le=MOST_IMAGES)]
    draws: Count  # of the dequantisation and of the probe, an image
    dequantisation: Literal["level", "released"]
    sigma_0: float  # the noise of the images whose density it is
    rtol: float
    atol: float
    total: float
    standard_error: float  # of the total, the images taken as a sample of the data; holds that of the draws too
    draw_error: float | None  # of the total, by the draws alone; None where there is one an image
    prior: float  # -log N(x_T; 0, 1)
    flow: float
    calls: float  # network calls an image and draw, each with a product with the Jacobian
    quantiles: Interval = ()  # of the total at QUANTILES, by a bootstrap over the images

    @property
    def interval(self) -> tuple[float, float]:
        """95%, for the mean over the data that the images are a sample of."""
        half = NormalDist().inv_cdf(0.975) * self.standard_error
        return self.total - half, self.total + half
