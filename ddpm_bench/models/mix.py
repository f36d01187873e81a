"""Two checkpoints of one process as one model: improved DDPM's combined model (Nichol, Dhariwal 2021).

The first and last steps of the chain are one's, those between the other's.
"""

from typing import Any

from torch import Tensor

from ddpm_bench.config.networks import MixedSettings
from ddpm_bench.config.settings import ProcessSettings
from ddpm_bench.errors import UserError
from ddpm_bench.models.model import Model
from ddpm_bench.models.model_card import KINDS, ModelCard


def mix(ends: Model, middle: Model, below: int, name: str | None = None) -> tuple[ModelCard, dict[str, Tensor]]:
    """The card and the weights, by name, of the model that is `ends` at the first and last `below` steps, else `middle`.

    UserError where the two differ in anything but their weights and how they were trained, or where no step is left to one.
    """
    if found := _differences(ends, middle):
        listed = "\n".join(f"  {name}: {a} and {b}" for name, a, b in found)
        raise UserError(f"'{ends.name}' and '{middle.name}' cannot be mixed, because they differ in\n{listed}\n"
                        "Mix checkpoints that differ in their weights alone.")  # fmt: skip
    if below < 1 or 2 * below >= ends.T:
        raise UserError(f"--below {below} of a chain of {ends.T:,} steps leaves no step to one of the two; choose 1 to "
                        f"{(ends.T - 1) // 2}.")  # fmt: skip
    told = ends.diffusion.schedule.network_steps
    same_step = ends.step == middle.step
    card = ModelCard(
        name=name or f"{middle.name} with ends of {ends.name}",
        weights=ends.weights,
        step=ends.step if same_step else None,
        shape=ends.shape,
        process=ProcessSettings.model_validate(process_of(ends)),
        network=MixedSettings(
            network=ends.network_settings, below=told[below].item(), above=told[ends.T - below].item()
        ),
        sampling=middle.sampling,
        source={"format": "mix", "ends": ends.name, "ends_sha256": ends.weights_sha256, "middle": middle.name,
                "middle_sha256": middle.weights_sha256},
        remarks=() if same_step else (f"training steps: {ends.step} of the ends, {middle.step} of the middle",),
    )  # fmt: skip
    networks = (("ends", ends.network), ("middle", middle.network))
    weights = {
        f"{part}.{key}": held.clone() for part, network in networks for key, held in network.state_dict().items()
    }
    return card, weights


def _differences(ends: Model, middle: Model) -> list[tuple[str, Any, Any]]:
    """Name and both values of all in which two models differ beside weights and training; data count where both say theirs."""
    a, b = (_meaning(model) for model in (ends, middle))
    return [
        (f"{section}.{key}", was.get(key), b[section].get(key))
        for section, was in a.items()
        if section in b
        for key in was | b[section]
        if was.get(key) != b[section].get(key)
    ]


def _meaning(model: Model) -> dict[str, dict[str, Any]]:
    """All that two models must share, by section."""
    data = model.data
    known = data and {"data": data.model_dump(mode="json") | {"sha256": model.identity.get("data_sha256")}}
    return {
        "process": process_of(model),
        "network": model.network_settings.model_dump(mode="json"),
        "model": {"shape": list(model.shape), "weights": KINDS[model.weights]},
        "sampling": model.sampling.model_dump(mode="json", exclude={"samples"}),
    } | (known or {})


def process_of(model: Model) -> dict[str, Any]:
    """JSON values, without the objective, which a trained model's has too."""
    return model.process.model_dump(mode="json", include=set(ProcessSettings.model_fields))
