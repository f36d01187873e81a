"""A pipeline of models as one: each enlarges what the one below it draws ("Cascaded Diffusion Models", Ho et al. 2021).

    p(x_0) = integral of p(x_0 | z) p(z) dz, z the small image, drawn by the models below

The models are anyone's: each keeps its own process, its own sampler and steps. How noise is added to z is in
`diffusion/augmentation.py`.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from torch import Tensor

from ddpm_bench.config.sampling import SamplingSettings
from ddpm_bench.config.settings import ProcessSettings
from ddpm_bench.errors import UserError
from ddpm_bench.models.build_sampling import build_level
from ddpm_bench.models.mix import process_of
from ddpm_bench.models.model import BELOW, Model
from ddpm_bench.models.model_card import KINDS, ModelCard


def cascade(
    models: Sequence[Model], augmentation: Sequence[int] = (), name: str | None = None
) -> tuple[ModelCard, dict[str, Tensor]]:
    """The card and the weights, by name, of the cascade of these models; see `stacked`."""
    whole = stacked(models, augmentation, name)
    return card_of(whole), _tensors(whole)


def stacked(models: Sequence[Model], augmentation: Sequence[int] = (), name: str | None = None) -> Model:
    """These models as one, that of the smallest images first.

    augmentation: the level of noise in the images that each super-resolution model is shown; none: each checkpoint's own. UserError
    where the models do not fit together.
    """
    if len(models) < 2:
        raise UserError("A cascade takes two models or more: one that draws small images, and those that enlarge them.")
    if augmentation and len(augmentation) != len(models) - 1:
        raise UserError(
            f"--augmentation is given {len(augmentation)} times, and {len(models) - 1} of the models enlarge images: give it once for "
            "each of them, the lowest first, or not at all."
        )
    lowest = models[0]
    if lowest.network_settings.told_small and lowest.below is None:
        raise UserError(
            f"'{lowest.name}' is the lowest model, and enlarges images of {lowest.network_settings.told_small} pixels. Name a model that "
            "draws those before it."
        )
    shown = [replace(model, sampling=_with_level(model, augmentation[i : i + 1])) for i, model in enumerate(models[1:])]
    whole = lowest
    for lower, upper in pairwise([lowest, *shown]):
        _check_fit(lower, upper)
        whole = replace(upper, below=whole)
    whole.chain(whole.sampling)  # refused now rather than when it is sampled
    sides = " to ".join(str(model.shape[1]) for model in models)
    return replace(whole, name=name or f"cascade {sides}, {models[-1].name}")


def card_of(model: Model) -> ModelCard:
    """What a model is, and those below it."""
    return ModelCard(
        name=model.name,
        weights=model.weights,
        step=model.step,
        shape=model.shape,
        process=ProcessSettings.model_validate(process_of(model)),
        network=model.network_settings,
        sampling=model.sampling,
        source={"format": "cascade", "model": model.name, "sha256": model.weights_sha256},
        below=card_of(model.below) if model.below else None,
    )


def _with_level(model: Model, asked: Sequence[int]) -> SamplingSettings:
    sampling = model.sampling.model_copy(update={"augmentation": asked[0]}) if asked else model.sampling
    build_level(sampling, model.network_settings)
    return sampling


def _check_fit(lower: Model, upper: Model) -> None:
    """UserError, with the remedy, where `upper` cannot enlarge what `lower` draws."""
    between, side = f"'{lower.name}' and '{upper.name}' do not go together", upper.network_settings.told_small
    if side is None or upper.below:
        what = "is a cascade itself" if upper.below else "enlarges nothing: it was trained without network.small"
        raise UserError(f"'{upper.name}' {what}. It can be the lowest model of a cascade alone; name it first.")
    if lower.shape[1] != side:
        raise UserError(
            f"{between}: one draws images of {lower.shape[1]}x{lower.shape[1]} pixels, and the other enlarges those of {side}x{side}. Name "
            "the models in the order of their sizes, each trained with network.small of the one before it."
        )
    if lower.shape[0] != upper.shape[0]:
        raise UserError(
            f"{between}: one is of {lower.shape[0]} channels, the other of {upper.shape[0]}. Take models of the same data."
        )
    if (classes := lower.network_settings.told_classes) != upper.network_settings.told_classes:
        raise UserError(
            f"{between}: one is told {classes} classes, the other {upper.network_settings.told_classes}. Train both with the same "
            "network.classes."
        )
    if lower.weights != upper.weights:
        raise UserError(
            f"{between}: the weights of one are {KINDS[lower.weights]}, of the other {KINDS[upper.weights]}. Take the same of both."
        )
    if lower.sampling.corrector_norm == "batch":
        raise UserError(
            f"{between}: '{lower.name}' is sampled with norms over a batch, corrector_norm = batch, so that its images depend on the "
            "batch. Sample it with corrector_norm = image."
        )


def _tensors(model: Model) -> dict[str, Tensor]:
    own = {name: held.clone() for name, held in model.network.state_dict().items()}
    return own | ({BELOW + name: held for name, held in _tensors(model.below).items()} if model.below else {})
