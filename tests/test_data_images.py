"""uint8 <-> [-1, 1], levels that nobody scaled, and the hash of content."""

import hashlib

import pytest
import torch

from ddpm_bench.data.images import ImageData, Split, check_levels, content_hash, to_model, to_uint8
from ddpm_bench.runtime.observer import noting

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


@pytest.mark.parametrize(("highest", "said"), [(0, True), (1, True), (2, False), (255, False)])
def test_images_without_a_level_above_1_are_told_to_look_unscaled(highest, said):
    with noting() as notes:
        check_levels(torch.full((2, 1, 4, 4), highest, dtype=torch.uint8), "The samples")
    assert bool(notes) is said
    assert all("The samples hold no level above 1" in note and "x * 255" in note for note in notes)
