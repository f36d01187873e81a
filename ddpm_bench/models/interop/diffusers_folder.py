"""Which files of a diffusers folder are read, and whether the pipeline around them is one that can be scored, of pixels or of latents.

No component is passed over: what is in a pipeline beside a network and a scheduler changes what its network means.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import ValidationError

from ddpm_bench.config.networks import Settings
from ddpm_bench.errors import UserError
from ddpm_bench.models.interop.given import load_json
from ddpm_bench.models.interop.user_says import reasons
from ddpm_bench.text import brief

Config = TypeVar("Config", bound=Settings)

INDEX = "model_index.json"
SCHEDULER = ("scheduler/scheduler_config.json", "scheduler_config.json")
NETWORKS = {"unet": ("UNet2DModel",), "transformer": ("DiTTransformer2DModel", "Transformer2DModel")}
"""The component that is the network, and its class, which a transformer had another of before diffusers 0.30."""
PIPELINES = {"DDPMPipeline": "unet", "DDIMPipeline": "unet", "LDMPipeline": "unet", "DiTPipeline": "transformer"}
OF_LATENTS = ("LDMPipeline", "DiTPipeline")
CLASS_NAMES = "id2label"
"""What a DiT pipeline has in its index beside its components."""
AUTOENCODERS = ("vqvae", "vae")
"""What the autoencoder of a pipeline of latents is called, whatever its class."""
NOTES = {"_class_name", "_diffusers_version", "_name_or_path", "_module", "_use_default_values", "_commit_hash"}
"""Keys of diffusers' JSON files that say where they come from."""
WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
HALF = re.compile(r"diffusion_pytorch_model\.(fp16|bf16)\.(safetensors|bin)")
INSTEAD = (
    "ddpm-bench scores unconditional DDPM and DDIM pipelines of pixels, a UNet2DModel and its scheduler, LDM pipelines, which have an "
    "AutoencoderKL beside these, and DiT pipelines, whose network is a DiTTransformer2DModel."
)


class Files(NamedTuple):
    """The network's config.json, the file of its scheduler and the folder of its autoencoder, if there are such, and remarks."""

    config: Path
    scheduler: Path | None
    autoencoder: Path | None
    remarks: tuple[str, ...]


def pipeline_files(folder: Path, where: str) -> Files:
    """What is read of a folder.

    UserError where there is no network, or what is around it makes it another model.
    """
    remarks: tuple[str, ...] = ()
    index: Mapping[str, Any] = {}
    inner = [path for name in NETWORKS if (path := folder / name / "config.json").exists()]
    found = [*inner, *(path for path in [folder / "config.json"] if path.exists())]
    around, root = folder.resolve().parent / INDEX, folder
    if (folder / INDEX).exists():
        remarks = _check_pipeline(index := load_json(folder / INDEX), folder, where)
    elif around.exists() and folder.resolve().name in (beside := load_json(around)):
        index, root = beside, around.parent
        remarks = _check_pipeline(index, root, f"the folder of {where}")
    elif len(found) > 1:
        places = ["at its top" if path.parent == folder else f"in {path.parent.name}/" for path in reversed(found)]
        raise UserError(
            f"{where} has a network {' and another '.join(places)}, and no {INDEX} that says which is meant: give "
            f"{where[:-1]}/{inner[0].parent.name}', or move one away."
        )
    network = PIPELINES.get(str(index.get("_class_name")))
    meant = [path for path in found if network is None or path not in inner or path.parent.name == network]
    if not meant:
        names = [network] if network else NETWORKS
        raise UserError(
            f"{where} has neither config.json nor {' nor '.join(f'{name}/config.json' for name in names)}: it is no diffusers model."
        )
    config = meant[0]
    autoencoder = next((name for name in AUTOENCODERS if _parts(index).get(name)), None)
    mine = ("scheduler", autoencoder, *([config.parent.name] if config in inner else []))
    remarks = (*remarks, *_beside(folder, where, mine))
    return Files(config, _scheduler(root), root / autoencoder if autoencoder else None, remarks)


def _scheduler(root: Path) -> Path | None:
    return next((root / name for name in SCHEDULER if (root / name).exists()), None)


def expressed(kind: type[Config], content: Mapping[str, Any], where: str, noun: str) -> Config:
    """A configuration as `kind`. UserError naming keys and values that our `noun` cannot express."""
    try:
        return kind(**{key: value for key, value in content.items() if key not in NOTES})
    except ValidationError as error:
        raise UserError(f"{where} has what ddpm-bench's {noun} cannot express: {reasons(error)}.") from error


def weights_file(folder: Path) -> tuple[Path, tuple[str, ...]]:
    """The file of the weights beside config.json, in full precision where there is one; with remarks on the others."""
    there = sorted(
        path.name for path in folder.glob("diffusion_pytorch_model*") if path.suffix in (".safetensors", ".bin")
    )
    whole, halves = [name for name in WEIGHTS if name in there], [name for name in there if HALF.fullmatch(name)]
    if not whole and len({name.split(".")[1] for name in halves}) > 1:
        raise UserError(f"There are weights in several half precisions, {' and '.join(halves)}, and none in full: "
                        "move those away that are not meant.")  # fmt: skip
    chosen = next(iter([*whole, *sorted(halves, reverse=True)]), None)
    if chosen is None:
        others = sorted(path.name for path in folder.glob("*.safetensors*"))
        but = f", but {', '.join(others[:3])}" if others else ""
        raise UserError(f"There is no {WEIGHTS[0]} beside config.json{but}; save the model again with save_pretrained.")
    others = [name for name in there if name != chosen]
    passed_over = f"; {', '.join(others)} passed over" if others else ""
    return folder / chosen, (f"weights of {chosen}{passed_over}",) if others or chosen in halves else ()


def _check_pipeline(index: Mapping[str, Any], folder: Path, where: str) -> tuple[str, ...]:
    """A remark where its files differ. UserError naming what makes it another than an unconditional one."""
    pipeline, parts = index.get("_class_name"), _parts(index)
    network = PIPELINES.get(str(pipeline), "unet")
    mine = (network, "scheduler", *(AUTOENCODERS if pipeline in OF_LATENTS else ()))
    told = ", ".join(f"{name} ({_class_of(part)})" for name, part in parts.items() if name not in mine[:2])
    having = f" with {told}" if told else ""
    if pipeline not in PIPELINES:
        raise UserError(f"{INDEX} of {where} is of a {brief(pipeline)}{having}: {INSTEAD}")
    if pipeline in OF_LATENTS:
        _check_autoencoder(
            [parts[name] for name in AUTOENCODERS if name in parts], f"{where} is of a '{pipeline}'{having}"
        )
    if set(parts) - set(mine):
        raise UserError(f"{INDEX} of {where} has components beside {' and '.join(mine[:2])}, {told}: {INSTEAD}")
    if unknown := [name for name in index if name.startswith("_") and name not in NOTES]:
        raise UserError(
            f"{INDEX} of {where} has the keys {', '.join(unknown)}, whose meaning is not known here; take them out."
        )
    for name in mine[:2]:
        if name not in parts:
            raise UserError(f"{INDEX} of {where} has no {name}: it is not whole.")
        if not isinstance(parts[name], list) or len(parts[name]) != 2 or parts[name][0] != "diffusers":
            raise UserError(
                f"{INDEX} of {where} has {name} = {brief(parts[name])}, which is not a class of diffusers: {INSTEAD}"
            )
    if (kind := _class_of(parts[network])) not in NETWORKS[network]:
        raise UserError(f"{INDEX} of {where} has the {network} {kind}: {INSTEAD}")
    file = _scheduler(folder)
    if file is None:
        raise UserError(f"{INDEX} of {where} names a scheduler, but there is no {SCHEDULER[0]}; fetch it as well.")
    said, found = _class_of(parts["scheduler"]), load_json(file).get("_class_name", _class_of(parts["scheduler"]))
    other = f"{file.name} is of a {brief(found)} and is followed, though {INDEX} names a {said}"
    names = f"the names of classes in {INDEX} ({CLASS_NAMES}) are not used: --labels has their numbers"
    return (*([other] if found != said else []), *([names] if index.get(CLASS_NAMES) else []))


def _parts(index: Mapping[str, Any]) -> dict[str, Any]:
    """The components that a pipeline has."""
    notes = (CLASS_NAMES,) if index.get("_class_name") == "DiTPipeline" else ()
    return {
        name: part
        for name, part in index.items()
        if not name.startswith("_") and part != [None, None] and name not in notes
    }


def _check_autoencoder(parts: Sequence[Any], told: str) -> None:
    """UserError unless there is one, and it is an AutoencoderKL."""
    if [_class_of(part) for part in parts] == ["AutoencoderKL"]:
        return
    why = ""
    if "VQModel" in map(_class_of, parts):
        why = " A VQModel's latents are those before its codebook, which is a part of its decoder; there is no such codec here."
    raise UserError(f"{INDEX} of {told}: {INSTEAD}{why}")


def _class_of(part: Any) -> str:
    """The class of a component; what is there instead where it is none."""
    return str(part[1]) if isinstance(part, list) and len(part) == 2 else brief(part)


def _beside(folder: Path, where: str, mine: Sequence[str | None]) -> tuple[str, ...]:
    """A remark on models that lie beside the pipeline. UserError where no index says that they are no part of it."""
    others = [path for path in sorted(folder.glob("*/config.json")) if path.parent.name not in mine]
    classes = {path.parent.name: load_json(path).get("_class_name") for path in others}
    told = ", ".join(f"{name}/ ({brief(each)})" for name, each in classes.items())
    if not classes or (folder / INDEX).exists():
        return (f"no part of the pipeline and passed over: {told}",) if classes else ()
    if set(classes.values()) == {"UNet2DModel"}:
        raise UserError(
            f"{where} holds several networks, its own and {told}: give the folder of the one that is meant."
        )
    raise UserError(f"{where} holds models beside its network, {told}: {INSTEAD}")
