"""uint8 <-> [-1, 1], padding and averaging, and the hash of content."""

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ddpm_bench.data.images import BLOCK, ImageData, Split, content_hash, fit_to, to_model, to_uint8
from ddpm_bench.errors import UserError

LEVELS = torch.arange(256).to(torch.uint8)


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_level_survives_the_way_to_the_model_and_back(dtype):
    x = to_model(LEVELS, dtype)
    assert x.dtype == dtype
    assert (x[0], x[255]) == (-1, 1)
    assert torch.equal(to_uint8(x), LEVELS)


def test_levels_are_rounded_to_the_nearest_not_down():
    """Trap 5: flooring darkens by half a level; anything within 0.49 of a level is that level."""
    for offset in (-0.49, 0.49):
        x = (LEVELS.double() + offset) / 127.5 - 1
        assert torch.equal(to_uint8(x), LEVELS)


def test_values_outside_the_scale_are_clamped_not_wrapped():
    assert to_uint8(torch.tensor([-1.5, -1e9, 1.02, 1e9, float("inf")])).tolist() == [0, 0, 255, 255, 255]


def test_half_precision_input_is_rounded_in_float32():
    x = torch.linspace(-1, 1, 5001).to(torch.float16)
    assert torch.equal(to_uint8(x), to_uint8(x.double()))


def test_28_to_32_pads_two_zero_pixels_on_every_side():
    images = _random(3, 1, 28, 28)
    fitted = fit_to(images, 32)
    assert fitted.shape == (3, 1, 32, 32)
    assert torch.equal(fitted[:, :, 2:30, 2:30], images)
    assert fitted.sum(dtype=torch.int64) == images.sum(dtype=torch.int64)


def test_28_to_16_averages_two_by_two_and_pads_one():
    images = _random(3, 1, 28, 28)
    fitted = fit_to(images, 16)
    mean = images.double().reshape(3, 1, 14, 2, 14, 2).mean(dim=(3, 5))
    assert torch.equal(fitted[:, :, 1:15, 1:15], torch.floor(mean + 0.5).to(torch.uint8))
    assert not fitted[:, :, [0, 15]].any() and not fitted[:, :, :, [0, 15]].any()


def test_means_are_rounded_half_up():
    quads = torch.tensor([[0, 0, 0, 1], [0, 0, 1, 1], [0, 1, 1, 1], [255, 255, 255, 255], [254, 255, 254, 255]])
    blocks = quads.to(torch.uint8).reshape(5, 1, 2, 2)
    assert fit_to(blocks, 1).flatten().tolist() == [0, 1, 1, 255, 255]


def test_a_fitting_size_is_left_alone():
    images = _random(2, 3, 32, 32)
    assert torch.equal(fit_to(images, 32), images)


@settings(max_examples=60, deadline=None)
@given(height=st.integers(1, 40), width=st.integers(1, 40), channels=st.sampled_from([1, 3]), size=st.integers(8, 32))
def test_fitting_agrees_with_plain_loops_for_any_size(height, width, channels, size):
    images = _random(2, channels, height, width)
    factor = next(f for f in range(1, 100) if -(-max(height, width) // f) <= size)
    if height % factor or width % factor:
        with pytest.raises(UserError, match="cannot be averaged"):
            fit_to(images, size)
        return
    expected = np.zeros((2, channels, size, size), np.uint8)
    top, left = (size - height // factor) // 2, (size - width // factor) // 2
    for row in range(height // factor):
        for column in range(width // factor):
            block = images[:, :, row * factor : (row + 1) * factor, column * factor : (column + 1) * factor].double()
            expected[:, :, top + row, left + column] = np.floor(block.mean(dim=(2, 3)).numpy() + 0.5)
    assert np.array_equal(fit_to(images, size).numpy(), expected)


def test_a_size_that_does_not_divide_names_the_next_one_that_does():
    with pytest.raises(UserError, match=r"35x35 pixels.*data\.size = 16.*fits is 35"):
        fit_to(_random(1, 1, 35, 35), 16)
    with pytest.raises(UserError, match=r"fits is 9;"):
        fit_to(_random(1, 1, 36, 36), 8)
    assert fit_to(_random(1, 1, 36, 36), 9).shape[2:] == (9, 9)


def test_more_images_than_a_block_are_averaged_alike():
    images = _random(BLOCK + 3, 1, 2, 2)
    assert torch.equal(fit_to(images, 1)[-3:], fit_to(images[-3:], 1))


def test_the_hash_tells_pixels_shapes_and_splits_apart_and_nothing_else():
    train, test = _random(6, 1, 4, 4), _random(2, 1, 4, 4, seed=1)
    digest = content_hash(train, test)
    assert digest == content_hash(train.clone(), test.permute(0, 1, 3, 2).contiguous().permute(0, 1, 3, 2))
    changed = train.clone()
    changed[5, 0, 3, 3] ^= 1
    others = [
        (changed, test),
        (test, train),
        (train.reshape(6, 1, 2, 8), test.reshape(2, 1, 2, 8)),
        (train[:4], torch.cat([train[4:], test])),
    ]
    assert len({digest, *(content_hash(*other) for other in others)}) == 1 + len(others)


def test_the_hash_is_pinned_because_records_carry_it():
    zeros = torch.zeros(2, 1, 2, 2, dtype=torch.uint8)
    expected = hashlib.sha256(b"uint8 (2, 1, 2, 2)\n" + bytes(8) + b"uint8 (1, 1, 2, 2)\n" + bytes(4)).hexdigest()
    assert content_hash(zeros, zeros[:1]) == expected


def test_shape_and_lengths_are_those_of_the_images():
    data = ImageData("x", Split(_random(5, 3, 8, 9)), Split(_random(2, 3, 8, 9)), "")
    assert (data.shape, len(data.train), len(data.test)) == ((3, 8, 9), 5, 2)
