"""Small pictures of images, as measured: no smoothing, no rescaling of levels."""

from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from ddpm_bench.files import replacing


def write_image_grid(path: Path, images: Tensor, columns: int = 8, side: int = 32) -> None:
    """Write uint8 (N, C, H, W), C = 1 or 3, as one PNG; small images are enlarged by a whole factor to at least `side` pixels."""
    pixels = images.permute(0, 2, 3, 1).numpy()  # (N, H, W, C)
    height, width, channels = pixels.shape[1:]
    rows, gap = -(-len(pixels) // columns), 1
    canvas = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, channels), 255, dtype=np.uint8)
    for index, image in enumerate(pixels):
        top, left = (gap + index // columns * (height + gap)), (gap + index % columns * (width + gap))
        canvas[top : top + height, left : left + width] = image
    factor = -(-side // height)
    canvas = canvas.repeat(factor, axis=0).repeat(factor, axis=1)
    with replacing(path) as temporary:
        Image.fromarray(canvas.squeeze(2) if channels == 1 else canvas).save(temporary, format="PNG", optimize=True)
