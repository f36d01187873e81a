"""What may be measured of samples beyond score, distance, precision and recall, by the names of `config.settings.Quality`.

density     density and coverage of the features                              `density.py`
copies      how near samples are to single training images, in pixels         `copies.py`
spatial     the Frechet distance of features that know where things are:      `extractor.SpatialLayer`
            sFID with Inception (Nash et al. 2021; ADM's evaluator), another name with another extractor
mmd         CMMD's distance with CLIP, another name with another extractor    `mmd.py`
"""

from dataclasses import dataclass

from torch import Tensor
from torch_fidelity.metric_fid import fid_features_to_statistics

from ddpm_bench.config.metrics import AGREEMENT
from ddpm_bench.config.settings import ScoringSettings
from ddpm_bench.errors import UserError
from ddpm_bench.metrics.class_wise import Classes, agreeing, class_wise
from ddpm_bench.metrics.copies import find_copies
from ddpm_bench.metrics.density import density_and_coverage
from ddpm_bench.metrics.extractor import Extractor, MeasuredImages
from ddpm_bench.metrics.features import Outputs, kept_features
from ddpm_bench.metrics.mmd import scaled_mmd
from ddpm_bench.metrics.uncertainty import Quantiles, frechet, mean_quantiles, replicates_for
from ddpm_bench.records.classes import ClassScores
from ddpm_bench.runtime.runtime import Runtime


@dataclass(frozen=True)
class Scores:
    """Values by their key in `config.metrics.METRICS`; of some, their interval at `record.QUANTILES`; some by class."""

    metrics: dict[str, float]
    quantiles: dict[str, Quantiles]
    classes: tuple[ClassScores, ...] = ()

    def __or__(self, other: "Scores") -> "Scores":
        return Scores(self.metrics | other.metrics, self.quantiles | other.quantiles, self.classes or other.classes)


@dataclass(frozen=True, eq=False)
class Compared:
    """Samples and what they are compared with. held_out: test images, which say how near copies are; None where none are."""

    samples: MeasuredImages
    outputs: Outputs
    training: MeasuredImages
    training_features: Tensor
    held_out: MeasuredImages | None
    extractor: Extractor
    runtime: Runtime


def check_quality(scoring: ScoringSettings, extractor: Extractor) -> None:
    """UserError for what this extractor cannot measure."""
    if "spatial" in scoring.quality and extractor.spatial is None:
        raise UserError(
            f"'spatial' is a distance of features that know where in an image something is, and none are known of the "
            f"extractor '{extractor.info.name}'. Use inception, embedded or one of your own, or leave 'spatial' out."
        )


def quality(of: Compared, scoring: ScoringSettings, seed: int) -> Scores:
    """What `scoring.quality` names. `seed`: of the intervals of means and distances, by `scoring.bootstrap` replicates.

    Raises Interrupted between blocks and replicates.
    """
    found, ways = Scores({}, {}), {"density": _density, "copies": _copies, "spatial": _spatial, "mmd": _mmd}
    for name in scoring.quality:
        found |= ways[name](of, scoring, seed)
    return found


def _density(of: Compared, scoring: ScoringSettings, seed: int) -> Scores:
    on = of.runtime.float64_device
    local = density_and_coverage(of.outputs.features.to(on), of.training_features.to(on), scoring.density_neighborhood)
    values = {"density": local.density, "coverage": local.coverage}
    return Scores(values, _interval("density", local.densities, scoring, seed))


def _copies(of: Compared, scoring: ScoringSettings, seed: int) -> Scores:
    copies = find_copies(of.samples, of.training, of.held_out, of.runtime)
    values = {"copy_distance": copies.median}
    if copies.found is None:
        return Scores(values, {})
    share = copies.found.double()
    return Scores(values | {"copies": float(share.mean())}, _interval("copies", share, scoring, seed))


def _spatial(of: Compared, scoring: ScoringSettings, seed: int) -> Scores:
    features = of.outputs.spatial
    assert features is not None  # `check_quality`
    reference = fid_features_to_statistics(kept_features(of.training, of.extractor, of.runtime, spatial=True))
    replicates = replicates_for(scoring.bootstrap, features.shape[1]) if scoring.bootstrap else 0
    found = frechet(
        features.to(of.runtime.float64_device), reference["mu"], reference["sigma"], replicates=replicates, seed=seed
    )
    return Scores({"sfd_train": found.value}, {"sfd_train": found.quantiles} if found.quantiles else {})


def _mmd(of: Compared, scoring: ScoringSettings, seed: int) -> Scores:
    on = of.runtime.float64_device
    return Scores({"mmd_train": scaled_mmd(of.outputs.features.to(on), of.training_features.to(on))}, {})


def of_classes(of: Compared, classes: Classes, scoring: ScoringSettings, seed: int) -> Scores:
    """How often samples are of the class that they were asked to be of, where the extractor can tell, and their scores by class."""
    by_class = class_wise(of.outputs, of.training_features, classes, of.extractor.info)
    if not classes.known:
        return Scores({}, {}, by_class)
    agreement = agreeing(of.outputs.logits, classes.asked)
    return Scores({AGREEMENT: float(agreement.mean())}, _interval(AGREEMENT, agreement, scoring, seed), by_class)


def _interval(key: str, values: Tensor, scoring: ScoringSettings, seed: int) -> dict[str, Quantiles]:
    """That of the mean of `values`, one for each sample."""
    return {key: mean_quantiles(values, scoring.bootstrap, seed)} if scoring.bootstrap else {}
