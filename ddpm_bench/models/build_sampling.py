"""How samples are drawn: settings become a sampler and its steps, what a network is told, and what guides it; `build.py` has the rest."""

import re
from dataclasses import asdict, fields
from typing import Any, Literal

from torch import nn

from ddpm_bench.config.networks import NetworkSettings
from ddpm_bench.config.sampling import BALANCED, SamplingSettings
from ddpm_bench.config.settings import ProcessSettings
from ddpm_bench.diffusion.guidance import Guided
from ddpm_bench.diffusion.reverse import Diffusion
from ddpm_bench.diffusion.sample_labels import SampleLabels
from ddpm_bench.diffusion.samplers import SAMPLERS, Sampler
from ddpm_bench.diffusion.spacing import SPACINGS, Spacing, kept_steps
from ddpm_bench.errors import UserError
from ddpm_bench.models.build import named
from ddpm_bench.models.classifiers import Classifier, classifier_of


def build_sampler(settings: SamplingSettings) -> Sampler:
    """How a step of the chain is taken; UserError for an unknown name, and for an option that it has not."""
    kind, asked = named("sampler", settings.sampler, SAMPLERS), settings.options
    for name, value in asked.items():
        if name not in _options(kind):
            those = ", ".join(other for other, its in SAMPLERS.items() if name in _options(its))
            raise UserError(
                f"The sampler '{settings.sampler}' has no {name}, which is {value} here. Of these it is an option: {those}."
            )
    return kind(**asked)


def _options(kind: type[Sampler]) -> set[str]:
    return {field.name for field in fields(kind)}


def build_spacing(settings: SamplingSettings) -> Spacing:
    """Which steps a strided chain visits; UserError for an unknown name."""
    if re.fullmatch(r"ddim\d+|[\d, ]+", settings.spacing):
        raise UserError(
            f"The spacing '{settings.spacing}' is one of OpenAI's that is not offered: 'openai' is their one section of "
            "evenly spaced steps, and where N divides T their ddimN is 'leading' in N steps. The number goes to --steps."
        )
    return named("spacing", settings.spacing, SPACINGS)


def strided_steps(settings: SamplingSettings, T: int) -> list[int] | None:
    """The steps of 1..T that a strided chain visits; None for the whole chain. UserError for more steps than T."""
    spacing = build_spacing(settings)
    if settings.steps is None or not settings.strided(T):
        return None
    return kept_steps(T, settings.steps, spacing)


def steps_made(settings: SamplingSettings, T: int) -> int:
    """So many steps are made for a sample: T, or those of `strided_steps`."""
    kept = strided_steps(settings, T)
    return len(kept) if kept else T


def network_calls(settings: SamplingSettings, T: int) -> int:
    """Of a sample: see `Chain.network_calls`."""
    return build_sampler(settings).network_calls(steps_made(settings, T)) * (2 if settings.guided else 1)


def build_sample_labels(settings: SamplingSettings, network: NetworkSettings) -> SampleLabels | None:
    """Which class each sample is of; None where the network is told none, and no classifier guides. UserError for one that they do
    not have."""
    guiding = classifier_of(settings.classifier).classes if settings.classifier and settings.by_classifier else 0
    if network.told_classes and guiding not in (0, network.told_classes):
        raise UserError(
            f"The classifier tells {guiding} classes apart, and the network is told {network.told_classes}. Use a classifier of its "
            "classes."
        )
    if guiding and not network.told_classes:
        return _sample_labels(settings, guiding, "classifier")
    return _sample_labels(settings, network.told_classes, "network")


def _sample_labels(
    settings: SamplingSettings, classes: int, who: Literal["network", "classifier"]
) -> SampleLabels | None:
    asked = settings.labels
    if not classes:
        if asked is None:
            return None
        raise UserError(f"labels = {asked} of samples: the network is told no classes. Leave it out.")
    if isinstance(asked, int) and asked >= classes:
        raise UserError(
            f"labels = {asked} of samples: the {classes} classes of the {who} are numbered 0 to {classes - 1}."
        )
    return SampleLabels(classes, asked if isinstance(asked, int) else None, told=who == "network")


def build_level(settings: SamplingSettings, network: NetworkSettings) -> int | None:
    """The level of noise that small images are shown with; None where the network is told none. UserError for one that it does
    not know."""
    asked, small, most = settings.augmentation, network.told_small, network.told_levels
    if asked is not None and small is None:
        raise UserError(
            f"augmentation = {asked} is noise in small images, and the network enlarges none. Leave it out, or give it for a "
            "super-resolution model."
        )
    if asked is not None and asked > most:
        knows = f"levels 0 to {most}" if most else "clean images alone"
        raise UserError(
            f"augmentation = {asked}: the network was trained with {knows}. Choose one of these, or train one with "
            f"network.augmentation={asked}."
        )
    return (asked or 0) if most else None


def build_guided(
    network: nn.Module, sampling: SamplingSettings, settings: NetworkSettings, shape: tuple[int, int, int]
) -> nn.Module:
    """The network as samples are drawn by it, of x_t of `shape` (C, H, W): itself where there is no guidance."""
    check_guidance(sampling, settings)
    if not sampling.guided or settings.no_class is None:
        return network
    if (asked := sampling.guidance_channels or 0) > shape[0]:
        raise UserError(
            f"guidance_channels = {asked}: the prediction has {shape[0]}. Leave it out, and all of them are guided."
        )
    return Guided(network, sampling.guidance, settings.no_class, sampling.guidance_channels)


def check_guidance(settings: SamplingSettings, network: NetworkSettings) -> None:
    """UserError for a scale that the network has no two predictions for, and for channels of no guidance."""
    scale, channels = settings.guidance, settings.guidance_channels
    if channels is not None and not settings.guided:
        raise UserError(
            f"guidance_channels = {channels} is of guidance, and the scale is 1, which is none. Leave it out, or give guidance."
        )
    if settings.guided and network.no_class is None:
        why = "was trained with every label told" if network.told_classes else "is told no classes"
        raise UserError(
            f"guidance = {scale:g} sets the prediction for a class apart from that for none, and the network {why}. Leave it out, or "
            "train one with network.classes, network.null_class=true and training.label_dropout."
        )


def guiding_classifier(
    settings: SamplingSettings, process: ProcessSettings, shape: tuple[int, int, int]
) -> Classifier | None:
    """What guides samples x_t of `shape` (C, H, W); None where nothing does. UserError for a classifier that is not on this machine,
    and for one of another process or shape."""
    check_by_classifier(settings)
    if settings.classifier is None or not settings.by_classifier:
        return None
    found = classifier_of(settings.classifier)
    found.check(process.noise, shape)
    return found


def check_by_classifier(settings: SamplingSettings) -> None:
    """UserError for a gradient at a mean that the sampler does not take."""
    sampler = build_sampler(settings)
    if settings.gradient_at == "mean" and not sampler.takes_mean:
        those = ", ".join(name for name, kind in SAMPLERS.items() if kind.takes_mean)
        raise UserError(
            f"gradient_at = mean: the sampler '{sampler.name}' takes x_0 and eps, which are guided at x_t, and no mean. Leave it out, or "
            f"use one of these: {those}."
        )


def sampling_options(settings: SamplingSettings, network: NetworkSettings) -> dict[str, Any]:
    """All that decides a step of a chain, JSON values by name: the sampler's own options, and what the network is told and guided by."""
    options = asdict(build_sampler(settings)) | settings.told(network.told_classes)
    level = build_level(settings, network)
    if network.told_small is not None:
        options |= {"augmentation": level or 0}
    if settings.classifier is None or not settings.by_classifier:
        return options
    scale, at = settings.gradient
    return options | {"classifier": {"scale": scale, "at": at, "sha256": classifier_of(settings.classifier).sha256}}


def sampling_remarks(settings: SamplingSettings, network: NetworkSettings, diffusion: Diffusion) -> tuple[str, ...]:
    """What is to be known of samples that are drawn so; see `Sampler.remarks`."""
    remarks = build_sampler(settings).remarks(diffusion, settings.clip_x0)
    check_guidance(settings, network)
    check_by_classifier(settings)
    level = build_level(settings, network)
    if side := network.told_small:
        remarks = (*remarks, _enlarging_in_words(side, level or 0))
    if settings.by_classifier:
        remarks = (*remarks, _classifier_in_words(settings))
    alone = settings.by_classifier and not network.told_classes  # its classes are known once it is trained
    labels = None if alone else _sample_labels(settings, network.told_classes, "network")
    if labels is None:
        return remarks
    which = (
        f"sample i is of class i modulo {labels.classes}" if labels.only is None else f"all are of class {labels.only}"
    )
    told = [f"Samples are of p(x|y): {which}. Bits/dim are of p(x|y), each image's own class told."]
    if settings.guided:
        told.append(_guidance_in_words(settings))
    return (*remarks, *told)


def _enlarging_in_words(side: int, level: int) -> str:
    noise = f"with noise of level s = {level} of the enlarging model's schedule" if level else "without noise"
    return f"Samples enlarge images of {side}x{side} pixels, shown {noise}."


def _guidance_in_words(settings: SamplingSettings) -> str:
    """The scale in both ways of writing it, and what it is of."""
    s, channels = settings.guidance, settings.guidance_channels
    of = "" if channels is None else f", the first {channels} channels alone"
    unguided = ". Bits/dim are those of the model without guidance"
    return f"Classifier-free guidance with the scale s = {s:g} = 1 + w, w = {s - 1:.4g}{of}: two network calls a prediction{unguided}."


def _classifier_in_words(settings: SamplingSettings) -> str:
    """What guides, how, and to which classes."""
    (scale, at), classifier = settings.gradient, str(settings.classifier)
    which = (
        "sample i to class i modulo their number"
        if settings.labels in (None, BALANCED)
        else f"all to class {settings.labels}"
    )
    return (
        f"Guided by the classifier {classifier[:24]} with the scale s = {scale:g}, its gradient taken at {at}, {which}: one "
        "gradient a network call. Bits/dim are those of the model without it."
    )
