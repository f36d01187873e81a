"""The images that a model is compared with."""

from pathlib import Path

import torch
from torch import Tensor

from ddpm_bench.config.settings import DataSettings
from ddpm_bench.data import ImageData, load_data
from ddpm_bench.data.image_files import read_files
from ddpm_bench.errors import UserError
from ddpm_bench.models.model import Model


def reference_data(model: Model, source: str | None, name: str | None = None, root: Path | None = None) -> ImageData:
    """Both splits of `source`, fitted to the model's size; without `source`, of what the model was trained on.

    UserError when that is not known, when it has changed since, or when images have another shape than the model's.
    """
    known = DataSettings(source=source, size=model.shape[-1]) if source else model.data
    if known is None:
        raise UserError(f"It is not known what '{model.name}' was trained on. Say what to compare it with: --data.")
    data = load_data(known.model_copy(update={"name": name or known.name, "root": root}))
    if data.shape != model.shape:
        raise UserError(
            f"'{model.name}' makes images of (C, H, W) = {model.shape}, and those of '{data.name}' are {data.shape}. "
            "Choose another --data."
        )
    trained_on = model.identity.get("data_sha256")
    if source is None and trained_on not in (None, data.sha256):
        raise UserError(
            f"'{data.name}' is not what '{model.name}' was trained on any more: its pixels have the SHA-256 "
            f"{data.sha256[:12]}…, then {trained_on[:12]}…. Bring the old images back, or compare with these by --data "
            f"{known.source}."
        )
    return data


def chosen_images(model: Model, sources: tuple[str, str], data: str | None, root: Path | None) -> Tensor:
    """Two images, uint8 (2, C, H, W): each the number of a test image of `data` (the model's own when None), or a path.

    UserError for one that is not there or not of the model's shape.
    """
    test: Tensor | None = None
    if any(source.isdecimal() for source in sources):
        test = reference_data(model, data, root=root).test.images
    images = []
    for source in sources:
        if test is None or not source.isdecimal():
            image = read_files([Path(source).expanduser()])[0]
        elif int(source) < len(test):
            image = test[int(source)]
        else:
            raise UserError(f"--interpolate {source}: the test images are numbered 0 to {len(test) - 1}.")
        if tuple(image.shape) != model.shape:
            raise UserError(
                f"--interpolate {source}: the image has (C, H, W) = {tuple(image.shape)}, and the checkpoint makes "
                f"{model.shape}. Convert the image, or choose another."
            )
        images.append(image)
    return torch.stack(images)
