"""Images brought to another size: what each way makes of them, what does not go, and what is told of it."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ddpm_bench.data import fitted
from ddpm_bench.data.images import BLOCK
from ddpm_bench.data.resize import WAYS
from ddpm_bench.errors import UserError


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def average(images: torch.Tensor, size: int) -> torch.Tensor:
    return fitted(images, (size, size), "average")[0]


@pytest.mark.parametrize("asked", [None, *WAYS])
def test_images_of_the_size_are_left_alone_and_nothing_is_told(asked):
    images = _random(2, 3, 8, 12)
    assert fitted(images, (8, 12), asked) == (images, "")


def test_28_to_32_is_padded_by_two_unasked_and_told():
    images = _random(3, 1, 28, 28)
    padded, done = fitted(images, (32, 32))
    assert done == "resized from 28x28 to 32x32 pixels by pad"
    assert torch.equal(padded[:, :, 2:30, 2:30], images)
    assert padded.sum(dtype=torch.int64) == images.sum(dtype=torch.int64)


@pytest.mark.parametrize(
    ("shape", "to", "said"),
    [
        (
            (28, 28),
            (16, 16),
            "28x28 pixels, and 16x16 are wanted.*--resize average or --resize bicubic.*bring them to one size",
        ),
        ((8, 8), (16, 16), "8x8 pixels, and 16x16.*--resize pad or --resize bicubic"),
        ((30, 40), (32, 32), "of 40x30 pixels, and 32x32.*What a model is trained on is square"),
        ((32, 32), (28, 28), "32x32 pixels, and 28x28"),
        ((28, 28), (36, 36), "28x28 pixels, and 36x36"),
        ((35, 35), (16, 16), "Ask for it with --resize bicubic-antialias"),
        ((4, 4), (16, 16), "or bring them to one size beforehand"),
    ],
)
def test_another_size_unasked_is_refused_with_both_sizes_and_what_would_do(shape, to, said):
    with pytest.raises(UserError, match=said):
        fitted(_random(1, 1, *shape), to)


def test_pad_centres_and_an_odd_one_more_goes_to_the_bottom_and_right():
    images = _random(2, 1, 9, 12)
    padded, _ = fitted(images, (12, 15), "pad")
    assert torch.equal(padded[:, :, 1:10, 1:13], images)
    assert padded.sum(dtype=torch.int64) == images.sum(dtype=torch.int64)
    with pytest.raises(UserError, match=r"12x9 pixels cannot be padded to 15x8.*--resize average"):
        fitted(images, (8, 15), "pad")


def test_28_to_16_averages_two_by_two_and_pads_one():
    images = _random(3, 1, 28, 28)
    mean = images.double().reshape(3, 1, 14, 2, 14, 2).mean(dim=(3, 5))
    made = average(images, 16)
    assert torch.equal(made[:, :, 1:15, 1:15], torch.floor(mean + 0.5).to(torch.uint8))
    assert not made[:, :, [0, 15]].any() and not made[:, :, :, [0, 15]].any()


def test_means_are_rounded_half_up():
    quads = torch.tensor([[0, 0, 0, 1], [0, 0, 1, 1], [0, 1, 1, 1], [255, 255, 255, 255], [254, 255, 254, 255]])
    blocks = quads.to(torch.uint8).reshape(5, 1, 2, 2)
    assert average(blocks, 1).flatten().tolist() == [0, 1, 1, 255, 255]


@settings(max_examples=60, deadline=None)
@given(height=st.integers(1, 40), width=st.integers(1, 40), channels=st.sampled_from([1, 3]), size=st.integers(8, 32))
def test_averaging_agrees_with_plain_loops_for_any_size(height, width, channels, size):
    images = _random(2, channels, height, width)
    factor = next(f for f in range(1, 100) if -(-max(height, width) // f) <= size)
    if (height, width) == (size, size):
        return
    if factor == 1 and (height, width, size) != (28, 28, 32):
        with pytest.raises(UserError, match="there is nothing to average"):
            average(images, size)
    if height % factor or width % factor:
        with pytest.raises(UserError, match="cannot be averaged"):
            average(images, size)
        return
    expected = np.zeros((2, channels, size, size), np.uint8)
    top, left = (size - height // factor) // 2, (size - width // factor) // 2
    for row in range(height // factor):
        for column in range(width // factor):
            block = images[:, :, row * factor : (row + 1) * factor, column * factor : (column + 1) * factor].double()
            expected[:, :, top + row, left + column] = np.floor(block.mean(dim=(2, 3)).numpy() + 0.5)
    assert np.array_equal(fitted(images, (size, size), "older")[0].numpy(), expected)
    if factor > 1:
        made, words = fitted(images, (size, size), "average")
        padded = (height // factor, width // factor) != (size, size)
        assert np.array_equal(made.numpy(), expected) and words.endswith(f"({factor}x{factor})" + ", then pad" * padded)


def test_a_size_that_does_not_divide_names_the_next_one_that_does():
    with pytest.raises(UserError, match=r"35x35 pixels.*averaged down to 16x16.*35 is the next"):
        average(_random(1, 1, 35, 35), 16)
    with pytest.raises(UserError, match=r"; 9 is the next"):
        average(_random(1, 1, 36, 36), 8)
    assert average(_random(1, 1, 36, 36), 9).shape[2:] == (9, 9)
    with pytest.raises(UserError, match=r"; 15 is the next"):
        fitted(_random(1, 1, 15, 15), (10, 40), "average")


def test_more_images_than_a_block_are_averaged_alike():
    images = _random(BLOCK + 3, 1, 2, 2)
    assert torch.equal(average(images, 1)[-3:], average(images[-3:], 1))


@pytest.mark.parametrize("to", [(16, 16), (40, 24)])
def test_bicubic_is_pillows_in_floats_on_each_channel_rounded_once(to):
    images = _random(2, 3, 32, 30)
    made, done = fitted(images, to, "bicubic-antialias")
    assert done == f"resized from 30x32 to {to[1]}x{to[0]} pixels by bicubic-antialias"
    for image, resized in zip(images.numpy(), made.numpy(), strict=True):
        for channel, levels in zip(image, resized, strict=True):
            exact = np.asarray(Image.fromarray(channel.astype(np.float32), "F").resize(to[::-1], Image.BICUBIC))
            assert np.abs(levels - exact.clip(0, 255)).max() <= 0.5


def test_bicubic_shrinks_without_aliasing():
    lines = torch.zeros(1, 1, 32, 32, dtype=torch.uint8)
    lines[..., ::2] = 255
    made, _ = fitted(lines, (8, 8), "bicubic-antialias")
    assert made[..., 1:-1].float().std() < 4  # grey, not every fourth column
