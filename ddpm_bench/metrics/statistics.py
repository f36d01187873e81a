"""Statistics of a reference's features that somebody else has measured: the mean and the covariance in an .npz file.

Keys `mu` (d,) and `sigma` (d, d), as pytorch-fid writes them and as OpenAI's reference batches hold them beside
images and the statistics of other features (`mu_s`, `sigma_s`: those of sFID). Which extractor made them, from images
of which size, no file says.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ddpm_bench.data.npz import read_arrays_named
from ddpm_bench.errors import UserError
from ddpm_bench.files import sha256_file
from ddpm_bench.metrics.extractor import Extractor

ROUNDING = 1e-5
"""Of a covariance's largest entry: what float32 may leave between two halves, or below zero of an eigenvalue."""


@dataclass(frozen=True, eq=False)
class GivenStatistics:
    """mean (d,) and covariance (d, d) in float64; `sha256` of the file; `passed_over`: names of its other arrays."""

    path: str
    mean: np.ndarray
    covariance: np.ndarray
    sha256: str
    passed_over: tuple[str, ...]

    @property
    def info(self) -> dict[str, Any]:
        """JSON values: all but the numbers."""
        return {
            "path": self.path, "features": len(self.mean), "sha256": self.sha256, "passed_over": list(self.passed_over)
        }  # fmt: skip

    def check_extractor(self, extractor: Extractor) -> None:
        """UserError when they are of another number of features, and so of another extractor."""
        if len(self.mean) != (features := extractor.info.feature_dim):
            raise UserError(
                f"'{self.path}' holds statistics of {len(self.mean):,} features, and the extractor "
                f"'{extractor.info.name}' has {features:,}. Name the one that made them (--extractor inception has 2,048)."
            )


def read_statistics(path: Path) -> GivenStatistics | None:
    """The statistics in the file `path`; None for a folder, and for an archive without `mu` and `sigma`.

    UserError for what is no mean and no covariance.
    """
    if not path.is_file() or path.suffix.lower() != ".npz":
        return None
    if (found := read_arrays_named(path, ("mu", "sigma"))) is None:
        return None
    mean, covariance = found[0]["mu"], found[0]["sigma"]
    for name, array in found[0].items():
        if array.dtype.kind != "f" or not np.isfinite(array).all():
            raise UserError(
                f"The array '{name}' of '{path}' is {array.dtype}{' and not finite' if array.dtype.kind == 'f' else ''}; "
                "statistics are finite floats. Make them again."
            )
    if mean.ndim != 1 or not mean.size or covariance.shape != (*mean.shape, *mean.shape):
        raise UserError(
            f"The arrays 'mu' and 'sigma' of '{path}' have the shapes {mean.shape} and {covariance.shape}; the mean of d "
            "features is (d,) and their covariance (d, d). Make them again."
        )
    mean, covariance = mean.astype(np.float64), covariance.astype(np.float64)
    allowed = ROUNDING * np.abs(covariance).max()
    if np.abs(covariance - covariance.T).max() > allowed or np.linalg.eigvalsh(covariance).min() < -allowed:
        raise UserError(
            f"The array 'sigma' of '{path}' is no covariance: it is not symmetric, or has a direction of negative "
            "variance. Make it again."
        )
    return GivenStatistics(str(path), mean, covariance, sha256_file(path), found[1])
