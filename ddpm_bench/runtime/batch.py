"""How many images a network call takes, outside training: as many as pay, and as the memory that is free holds."""

import torch

MOST = {"cpu": 128, "cuda": 512}
"""Images a call of the U-Net beyond which none gets faster."""
BYTES_A_PIXEL = 24 * 1024
"""What the paper's network needs to score or sample an image, by its pixels: 24 MiB for one of 32x32, generously."""


def default_batch(device: torch.device, side: int) -> int:
    """Images of `side` pixels a call of the U-Net. A power of two."""
    pixels = max(side, 32) ** 2
    if device.type == "cuda":
        return fitting(device, BYTES_A_PIXEL * pixels, MOST["cuda"])
    return _power_of_two(MOST["cpu"] * 32**2 // pixels)


def fitting(device: torch.device, image_bytes: int, most: int) -> int:
    """Images that half of a GPU's free memory holds at `image_bytes` each, `most` at most. A power of two."""
    free, _ = torch.cuda.mem_get_info(device)
    return _power_of_two(min(free // 2 // image_bytes, most))


def _power_of_two(number: int) -> int:
    """The largest that is not above `number`, and at least 1."""
    return 1 << max(number, 1).bit_length() - 1
