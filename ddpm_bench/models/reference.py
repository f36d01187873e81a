"""The images that a model is compared with."""

from pathlib import Path

import torch
from torch import Tensor

from ddpm_bench.config.limits import MOST_IMAGES
from ddpm_bench.config.resizing import Resize
from ddpm_bench.config.settings import DataSettings
from ddpm_bench.data import ImageData, fitted, load_data
from ddpm_bench.data.image_files import read_files
from ddpm_bench.errors import UserError
from ddpm_bench.models.model import Model
from ddpm_bench.runtime.observer import say
from ddpm_bench.text import brief


def reference_data(
    model: Model, source: str | None, name: str | None = None, root: Path | None = None, resize: Resize | None = None
) -> ImageData:
    """Both splits of `source` at the model's size; without `source`, of what the model was trained on.

    `resize`: how images of another size are fitted; what the model was trained on is fitted as it was then.
    UserError when that is not known, when it has changed since, or when images have another shape than the model's.
    """
    if resize and source is None:
        raise UserError(
            f"--resize {resize} goes with --data: what '{model.name}' was trained on is fitted as it was then."
        )
    trained = model.data
    if trained and source in (None, trained.source):
        known = trained.model_copy(update={"resize": resize or trained.resize})
    elif source:
        known = DataSettings.model_validate({"source": source, "size": model.shape[-1], "resize": resize})
    else:
        raise UserError(f"It is not known what '{model.name}' was trained on. Say what to compare it with: --data.")
    given_name = None if source else known.name
    data = load_data(known.model_copy(update={"name": name or given_name, "root": root}))
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


def chosen_images(
    model: Model, sources: tuple[str, str], data: str | None, root: Path | None, resize: Resize | None = None
) -> Tensor:
    """Two images, uint8 (2, C, H, W): each the number of a test image of `data` (the model's own when None), or a path.

    `resize`: how a path's image, or those of `data`, of another size are fitted. UserError for one that is not there or not
    of the model's shape.
    """
    numbered = [source.isdecimal() for source in sources]
    if resize and data is None and all(numbered):
        raise UserError(f"--resize {resize} goes with --data or the path of an image: nothing else is of another size.")
    if (data or root) and not any(numbered):
        raise UserError("--data and --data-root say whose test images are numbered, and paths alone are named.")
    test: Tensor | None = None
    if any(numbered):
        test = reference_data(model, data, root=root, resize=resize if data else None).test.images
    images = []
    for source in sources:
        if test is None or not source.isdecimal():
            image = _fitted(source, model, resize)
        elif len(source) <= len(str(MOST_IMAGES)) and int(source) < len(test):
            image = test[int(source)]
        else:
            raise UserError(f"{brief(source)}: the test images are numbered 0 to {len(test) - 1}.")
        images.append(image)
    return torch.stack(images)


def _fitted(source: str, model: Model, resize: Resize | None) -> Tensor:
    """The image at a path, of the model's shape."""
    channels, *size = model.shape
    image = read_files([Path(source).expanduser()])
    try:
        image, done = fitted(image, (size[0], size[1]), resize)
    except UserError as error:
        raise UserError(f"{source}: {error}") from error
    if image.shape[1] != channels:
        raise UserError(
            f"{source}: the image has (C, H, W) = {tuple(image.shape[1:])}, and the checkpoint makes "
            f"{model.shape}. Convert the image, or choose another."
        )
    if done:
        say(f"'{source}' is {done}")
    return image[0]
