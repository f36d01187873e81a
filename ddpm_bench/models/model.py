"""A checkpoint as a model: a network together with everything that decides what its output means.

`--ckpt` takes two kinds of folder: what `train` and `ablate` leave (`training/snapshots.py`), and what `import` makes of
other people's checkpoints:

    model.json            a ModelCard
    weights.safetensors   the network's state dict

What a model predicts, its schedule, its variance, how it is told the time and how it is sampled come from there, so a
model cannot be sampled or scored as something else.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
from pydantic import BaseModel, ValidationError
from torch import Tensor, nn

from ddpm_bench.config.networks import AnyNetworkSettings, NetworkSettings
from ddpm_bench.config.sampling import SamplingSettings
from ddpm_bench.config.settings import DataSettings, DiffusionSettings, ProcessSettings, as_written
from ddpm_bench.config.values import first_fault
from ddpm_bench.data.codec import check_clipping
from ddpm_bench.diffusion.denoiser import Denoiser
from ddpm_bench.diffusion.reverse import Diffusion
from ddpm_bench.diffusion.samplers import Below, Chain
from ddpm_bench.errors import NotFinite, UserError
from ddpm_bench.files import check_free, read_json, replacing, sha256_file, write_json
from ddpm_bench.models.build import build_codec, build_diffusion, build_network
from ddpm_bench.models.build_sampling import (
    build_guided,
    build_level,
    build_sample_labels,
    build_sampler,
    guiding_classifier,
    sampling_options,
    sampling_remarks,
    strided_steps,
)
from ddpm_bench.models.model_card import KINDS, Kind, ModelCard
from ddpm_bench.networks.weights import mismatch, not_finite, outline, read_tensors
from ddpm_bench.runtime.observer import say
from ddpm_bench.runtime.owner import owned
from ddpm_bench.runtime.runtime import Runtime
from ddpm_bench.training.snapshots import load_weights, unknown_settings

CARD, WEIGHTS = "model.json", "weights.safetensors"
BELOW = "below."
"""How the names of the weights of a cascade's lower models begin."""


class TrainedModel(BaseModel):
    """What a model needs of the identity of a training run, whose other keys are about the training."""

    data: DataSettings
    diffusion: DiffusionSettings
    network: AnyNetworkSettings
    channels: Literal[1, 3]


@dataclass(frozen=True)
class Model:
    """What is sampled, scored and bounded: a network in evaluation mode, and what it is.

    shape: (C, H, W) of its images. sampling: how it is sampled unless something else is asked for; the number of samples
    there is nobody's wish. data: what it was trained on, where that is known. step: training steps, where known.
    identity: JSON values, all that is known of how it came to be, for people; what is computed from a model depends on
    `function` alone. below: of a cascade, the model that draws the small images, which this one enlarges.
    """

    name: str
    network: nn.Module
    network_settings: NetworkSettings
    process: ProcessSettings
    diffusion: Diffusion
    shape: tuple[int, int, int]
    weights: Kind
    weights_sha256: str
    step: int | None
    sampling: SamplingSettings
    identity: dict[str, Any]
    data: DataSettings | None = None
    below: "Model | None" = None

    @property
    def T(self) -> int:
        """Steps of the whole chain."""
        return self.diffusion.schedule.T

    @property
    def parameters(self) -> int:
        """Of all networks of a cascade."""
        own = sum(parameter.numel() for parameter in self.network.parameters())
        return own + (self.below.parameters if self.below else 0)

    @property
    def function(self) -> dict[str, Any]:
        """JSON values that decide what the model computes, the hash of its weights first."""
        own = function_of(self.weights_sha256, self.process, self.network_settings, self.shape)
        if self.below is None:
            return own
        sampling = self.below.sampling.model_dump(mode="json", exclude={"samples", "labels"}, exclude_defaults=True)
        return own | {"below": self.below.function | {"sampling": sampling}}

    def place(self, runtime: Runtime) -> None:
        """All networks that samples take, where they run."""
        runtime.place(self.network)
        if self.below:
            self.below.place(runtime)

    def chain(self, sampling: SamplingSettings) -> Chain:
        """What samples are drawn by. UserError for more steps than the chain has, for a sampler that cannot sample it, and for a
        super-resolution model without one that draws what it enlarges."""
        whole, kept, sampler = self.whole_chain(sampling.clip_x0), self.kept_steps(sampling), build_sampler(sampling)
        sampler.check(self.diffusion)
        classifier = guiding_classifier(sampling, self.process, shape := whole.denoiser.shape)
        labels = build_sample_labels(sampling, self.network_settings)
        denoiser = replace(
            whole.denoiser,
            network=build_guided(self.network, sampling, self.network_settings, shape),
            classifier=classifier.guidance(*sampling.gradient) if classifier else None,
        )
        return Chain(
            denoiser.respaced(kept) if kept else denoiser, sampler, whole.codec, labels, self._chain_below(sampling)
        )

    def _chain_below(self, sampling: SamplingSettings) -> Below | None:
        """Sampled as its own checkpoint says, but of the classes that are asked for; None where nothing is enlarged."""
        level, side = build_level(sampling, self.network_settings), self.network_settings.told_small
        if side is None:
            return None
        if self.below is None:
            raise UserError(
                f"'{self.name}' enlarges images of {side}x{side} pixels, and has none to enlarge. Make a cascade of it and a model that "
                "draws them, `ddpm-bench cascade LOWER THIS --out DIR`, and give that; its bound, of p(x | small image), is measured by "
                "`ddpm-bench nll` without one."
            )
        lower = self.below.sampling.model_copy(update={"labels": sampling.labels})
        return Below(self.below.chain(lower), self.diffusion.schedule, level)

    def kept_steps(self, sampling: SamplingSettings) -> list[int] | None:
        """See `strided_steps`."""
        if sampling.steps is not None and sampling.steps > self.T:
            raise UserError(f"--steps {sampling.steps} exceeds the {self.T} steps of the checkpoint's chain.")
        return strided_steps(sampling, self.T)

    def sampling_remarks(self, sampling: SamplingSettings) -> tuple[str, ...]:
        """What is to be known of samples that are drawn so."""
        own = sampling_remarks(sampling, self.network_settings, self.diffusion)
        if self.below is None:
            return own
        lower, side = self.below, self.below.shape[1]
        chain = lower.chain(lower.sampling)
        guided = f", guidance s = {lower.sampling.guidance:g}" if lower.sampling.guided else ""
        by = f"'{lower.name}' in {chain.T:,} steps of '{chain.sampler.name}'{guided}"
        drawn = f"The images of {side}x{side} pixels are drawn by {by}."
        return (*own, drawn, *(lower.sampling_remarks(lower.sampling) if lower.below else ()))

    def sampling_options(self, sampling: SamplingSettings) -> dict[str, Any]:
        """All that decides a step of the chain, JSON values by name."""
        return sampling_options(sampling, self.network_settings)

    def whole_chain(self, clip_x0: bool, kept: Sequence[int] | None = None) -> Chain:
        """All T steps, or the strided chain of those that are kept: what a bound is of, however the model is sampled."""
        codec = build_codec(self.process)
        check_clipping(codec, clip_x0)
        denoiser = Denoiser(self.diffusion, self.network, codec.shape(self.shape), clip_x0, codec.range)
        return Chain(denoiser.respaced(kept) if kept else denoiser, codec=codec)


def function_of(
    weights_sha256: str, process: ProcessSettings, network: NetworkSettings, shape: tuple[int, int, int]
) -> dict[str, Any]:
    """See `Model.function`."""
    # What is not set stays unnamed, so that what was kept before there was such a setting is found.
    meaning = process.model_dump(mode="json", include=set(ProcessSettings.model_fields), exclude_none=True)
    return {
        "weights_sha256": weights_sha256,
        "process": meaning,
        "network": network.named,
        "shape": list(shape),
    }


def load_model(ckpt: Path, raw: bool = False) -> Model:
    """The model in the folder `ckpt`; its raw weights only when asked for.

    UserError when there is none, when it is damaged, or when it does not hold the weights asked for.
    """
    return _imported(ckpt, raw) if (ckpt / CARD).exists() else _trained(ckpt, raw)


def save_model(out: Path, card: ModelCard, weights: dict[str, Tensor]) -> ModelCard:
    """Write a converted checkpoint; the card last, so that a folder with a card is whole. UserError when `out` is taken.

    Returns the card as it is written, with the hash of the weights.
    """
    check_free(out)
    with owned(out):
        check_free(out)  # another command may have been here
        content = safetensors.torch.save({name: tensor.contiguous() for name, tensor in weights.items()})
        with replacing(out / WEIGHTS) as temporary:
            temporary.write_bytes(content)
        card = card.model_copy(update={"weights_sha256": hashlib.sha256(content).hexdigest()})
        write_json(out / CARD, card.model_dump(mode="json"))
    return card


def _trained(ckpt: Path, raw: bool) -> Model:
    kind: Literal["raw", "ema"] = "raw" if raw else "ema"
    weights, about = load_weights(ckpt, kind)
    identity = about["identity"]
    try:
        trained = TrainedModel.model_validate(as_written(identity))
    except ValidationError as error:
        raise unknown_settings(ckpt, error) from error
    process, diffusion = trained.diffusion, build_diffusion(trained.diffusion)
    shape = (trained.channels, trained.data.size, trained.data.size)
    return Model(
        name=ckpt.resolve().parent.name if ckpt.name.startswith("step-") else ckpt.resolve().name,
        network=_network(trained.network, build_codec(process).shape(shape), diffusion, weights, ckpt),
        network_settings=trained.network,
        process=process,
        diffusion=diffusion,
        shape=shape,
        weights=kind,
        weights_sha256=about["sha256"],
        step=about["step"],
        sampling=_sampling(ckpt, about["sampling"]),
        identity=identity | {"step": about["step"], "weights": kind, "weights_sha256": about["sha256"]},
        data=trained.data,
    )


def _network(
    settings: NetworkSettings,
    shape: tuple[int, int, int],
    diffusion: Diffusion,
    weights: dict[str, Tensor],
    where: Path,
) -> nn.Module:
    """The network of `settings` with `weights`, in evaluation mode: its memory is taken only once they are known to fit it.

    NotFinite for weights that are no numbers, whose samples or bound would be none either, after hours.
    """
    with outline():
        wrong = mismatch(build_network(settings, shape, diffusion), weights)
    if wrong:
        raise UserError(f"The weights in '{where}' do not fit what it says of their network: {wrong}. Make it again.")
    if found := not_finite(weights):
        raise NotFinite(f"The weights cannot be sampled or scored: {found}. Take an earlier checkpoint.")
    network = build_network(settings, shape, diffusion)
    network.load_state_dict(weights)
    return network.eval()


def _sampling(ckpt: Path, told: Any) -> SamplingSettings:
    """What a snapshot says of how its model is sampled; those of older versions say nothing."""
    if not told:
        say(
            f"'{ckpt}' does not say how it is sampled: by all steps of the chain, x_0 clipped, unless options say otherwise."
        )
    try:
        return SamplingSettings.model_validate(told)
    except ValidationError as error:
        raise unknown_settings(ckpt, error) from error


def _imported(folder: Path, raw: bool) -> Model:
    try:
        card = ModelCard.model_validate(read_json(folder / CARD))
    except (OSError, ValueError) as error:
        why = first_fault(error) if isinstance(error, ValidationError) else error
        raise UserError(
            f"'{folder / CARD}' is not a model card of ddpm-bench ({why}). Import the checkpoint again."
        ) from error
    if raw and card.weights != "raw":
        raise UserError(f"'{folder}' holds weights that are {KINDS[card.weights]}; without --raw they are used.")
    if card.weights == "raw" and not raw:
        raise UserError(f"'{folder}' holds raw weights, not their moving average; give --raw if these are meant.")
    try:
        weights = read_tensors(folder / WEIGHTS)
    except (OSError, ValueError) as error:
        raise UserError(f"'{folder / WEIGHTS}' cannot be read ({error}). Import the checkpoint again.") from error
    sha256 = sha256_file(folder / WEIGHTS)
    if card.weights_sha256 not in (None, sha256):
        raise UserError(
            f"'{folder / WEIGHTS}' is not what was imported: its hash has changed. Import the checkpoint again."
        )
    return _of_card(card, weights, sha256, folder)


def _of_card(card: ModelCard, weights: dict[str, Tensor], sha256: str, folder: Path) -> Model:
    """The model of a card, and of a cascade those below it, from the tensors of the file with this hash."""
    diffusion, below = build_diffusion(card.process), None
    if card.below:
        lower = {name.removeprefix(BELOW): held for name, held in weights.items() if name.startswith(BELOW)}
        weights = {name: held for name, held in weights.items() if not name.startswith(BELOW)}
        below = _of_card(card.below, lower, sha256, folder)
    return Model(
        name=card.name,
        network=_network(card.network, build_codec(card.process).shape(card.shape), diffusion, weights, folder),
        network_settings=card.network,
        process=card.process,
        diffusion=diffusion,
        shape=card.shape,
        weights=card.weights,
        weights_sha256=sha256,
        step=card.step,
        sampling=card.sampling,
        identity=card.model_dump(mode="json", exclude={"sampling", "remarks", *(() if card.below else ("below",))})
        | {"weights_sha256": sha256}
        | ({"remarks": list(card.remarks)} if card.remarks else {}),
        below=below,
    )
