"""Small pictures of images, as measured: no smoothing, no rescaling of levels."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from ddpm_bench.files import replacing

GAP = 1
"""White pixels between images, before enlargement."""


def write_image_grid(path: Path, images: Tensor, columns: int = 8, side: int = 32) -> None:
    """Write uint8 (N, C, H, W), C = 1 or 3, as one PNG, enlarged by a whole factor to at least `side` pixels each."""
    _save(path, _grid(images, columns, -(-side // images.shape[-2])))


def write_labelled_grid(
    path: Path, images: Tensor, heads: Sequence[str], sides: Sequence[str], about: Mapping[str, Any], side: int = 48
) -> None:
    """Write uint8 (rows, columns, C, H, W) as one PNG with a small heading a column and one a row.

    `about`: JSON values, kept in the file as its text "Description", so that the picture says what it is.
    """
    height, width = images.shape[-2:]
    factor, font = -(-side // height), ImageFont.load_default(10)
    grid = _grid(images.flatten(0, 1), len(heads), factor)
    left, top = 4 + max(int(font.getlength(text)) for text in sides), 14
    canvas = Image.new(grid.mode, (left + grid.width, top + grid.height), "white")
    canvas.paste(grid, (left, top))
    draw, black = ImageDraw.Draw(canvas), 0 if grid.mode == "L" else (0, 0, 0)
    for index, text in enumerate(heads):
        middle = left + factor * (GAP + index * (width + GAP) + width / 2)
        draw.text((middle, top / 2), text, fill=black, font=font, anchor="mm")
    for index, text in enumerate(sides):
        middle = top + factor * (GAP + index * (height + GAP) + height / 2)
        draw.text((left - 2, middle), text, fill=black, font=font, anchor="rm")
    _save(path, canvas, about)


def _grid(images: Tensor, columns: int, factor: int) -> Image.Image:
    pixels = images.permute(0, 2, 3, 1).numpy()  # (N, H, W, C)
    height, width, channels = pixels.shape[1:]
    rows = -(-len(pixels) // columns)
    canvas = np.full((rows * (height + GAP) + GAP, columns * (width + GAP) + GAP, channels), 255, dtype=np.uint8)
    for index, image in enumerate(pixels):
        top, left = (GAP + index // columns * (height + GAP)), (GAP + index % columns * (width + GAP))
        canvas[top : top + height, left : left + width] = image
    canvas = canvas.repeat(factor, axis=0).repeat(factor, axis=1)
    return Image.fromarray(canvas.squeeze(2) if channels == 1 else canvas)


def _save(path: Path, picture: Image.Image, about: Mapping[str, Any] | None = None) -> None:
    text = PngInfo()
    if about is not None:
        text.add_text("Description", json.dumps(about))
    with replacing(path) as temporary:
        picture.save(temporary, format="PNG", optimize=True, pnginfo=text)
