"""A codec that is not the pixels: everything between images and x_0 goes through it, and images come out as they went in."""

import pytest
import torch
from diffusion_cases import finite_eps, some_network
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from ddpm_bench.config.settings import TrainingSettings
from ddpm_bench.config.shipped import load_grid
from ddpm_bench.data.codec import CODECS, PIXELS, Codec, Pixels, Shape
from ddpm_bench.data.images import to_model, to_uint8
from ddpm_bench.diffusion.chains import interpolate, progressive
from ddpm_bench.diffusion.denoiser import Denoiser
from ddpm_bench.diffusion.objective import LSimple
from ddpm_bench.diffusion.parameterization import Eps
from ddpm_bench.diffusion.reverse import Diffusion, Network
from ddpm_bench.diffusion.samplers import Chain, sample
from ddpm_bench.diffusion.schedule import linear
from ddpm_bench.diffusion.times import Uniform
from ddpm_bench.diffusion.variance import FixedBetaTilde
from ddpm_bench.errors import UserError
from ddpm_bench.experiment.ablate import plan
from ddpm_bench.runtime.runtime import Runtime
from ddpm_bench.training.batches import Batches
from ddpm_bench.training.trainer import Trainer, Training

SCHEDULE = linear(50, 1e-4, 0.3)
IMAGES, LATENT = (1, 4, 6), (4, 2, 3)
COMMON = {"seed": 0, "runtime": Runtime(batch=8)}


class Tiles(Pixels):
    """Each square of 2x2 pixels becomes four channels of one: another shape, and nothing is lost."""

    name = "tiles"

    def shape(self, images: Shape) -> Shape:
        channels, height, width = images
        if height % 2 or width % 2:
            raise UserError(f"Sides {height} and {width} must be even.")
        return 4 * channels, height // 2, width // 2

    def encode(self, images: Tensor) -> Tensor:
        return pixel_unshuffle(to_model(images), 2)

    def decode(self, x: Tensor) -> Tensor:
        return to_uint8(pixel_shuffle(x, 2))


TILES = Tiles()


def images(count: int = 3) -> Tensor:
    return torch.randint(0, 256, (count, *IMAGES), dtype=torch.uint8, generator=torch.Generator().manual_seed(5))


def chain(network: Network) -> Chain:
    return Chain(Denoiser(Diffusion(SCHEDULE, Eps(), FixedBetaTilde()), network, TILES.shape(IMAGES)), codec=TILES)


def knows(points: Tensor) -> Network:
    """The optimal network of a data set of these images."""
    return finite_eps(SCHEDULE, TILES.encode(points).double())


def index_in(points: Tensor, found: Tensor) -> Tensor:
    """Which of the points each image found is, (N,); it must be one of them."""
    matches = (found[:, None] == points).flatten(2).all(2)
    assert matches.any(1).all()
    return matches.int().argmax(1)


@pytest.mark.parametrize(("codec", "shape"), [(TILES, LATENT), (PIXELS, IMAGES)], ids=lambda x: getattr(x, "name", ""))
def test_what_is_encoded_has_the_codecs_shape_and_comes_back(codec: Codec, shape: Shape) -> None:
    every = torch.arange(256, dtype=torch.uint8).repeat(3)[: 24 * 11].reshape(11, *IMAGES)
    assert codec.shape(IMAGES) == shape
    x0 = codec.encode(every)
    assert (x0.dtype, tuple(x0.shape)) == (torch.float32, (11, *shape))
    assert torch.equal(codec.decode(x0), every)
    assert (codec.decode(x0.sign() * 3).unique() == torch.tensor([0, 255])).all()  # clamped, not wrapped


def test_training_sees_flipped_images_encoded_and_noise_of_their_shape() -> None:
    known = images()
    drawn = Batches(known, 8, flips=True, seed=0, times=Uniform(50), codec=TILES, device=torch.device("cpu"))
    plain = Batches(known, 8, flips=True, seed=0, times=Uniform(50), device=torch.device("cpu"))
    both = torch.cat([known, known.flip(3)])
    seen = []
    for step in range(5):
        batch = drawn.at(step)
        assert batch.x0.shape == batch.eps.shape == (8, *LATENT)
        seen.append(TILES.decode(batch.x0))
        assert torch.equal(seen[-1], to_uint8(plain.at(step).x0))  # flipped as images, before they are encoded
    assert set(index_in(both, torch.cat(seen)).tolist()) == set(range(6))


def test_a_network_of_the_codecs_shape_is_trained(tmp_path) -> None:
    seen = set()

    class Convolution(nn.Conv2d):
        def forward(self, x: Tensor, step: Tensor) -> Tensor:
            seen.add(tuple(x.shape))
            return super().forward(x)

    denoiser = Denoiser(Diffusion(SCHEDULE, Eps(), FixedBetaTilde()), Convolution(4, 4, 3, padding=1), LATENT, False)
    settings = TrainingSettings(steps=20, batch=4, learning_rate=1e-2, warmup=0, log_every=10)
    run = Trainer(Training(denoiser, LSimple(), images(), settings, 0, {}, TILES), tmp_path)
    assert run.run(20) is None and seen == {(4, *LATENT)}
    assert run.log[-1].loss < run.log[0].loss


def test_samples_are_images_and_those_of_an_optimal_network_its_data_set() -> None:
    points = images()
    found = list(sample(chain(knows(points)), count=20, **COMMON))
    assert [(first, tuple(batch.shape)) for first, batch in found] == [
        (0, (8, *IMAGES)),
        (8, (8, *IMAGES)),
        (16, (4, *IMAGES)),
    ]
    assert all(batch.dtype == torch.uint8 for _, batch in found)
    assert set(index_in(points, torch.cat([batch for _, batch in found])).tolist()) == {0, 1, 2}


def test_progressive_generation_shows_images_and_ends_with_the_samples() -> None:
    one = chain(some_network())
    seen = progressive(one, count=10, at=[50, 20, 1, 0], **COMMON)
    assert (seen.dtype, tuple(seen.shape)) == (torch.uint8, (10, 4, *IMAGES))
    assert torch.equal(seen[:, -1], torch.cat([batch for _, batch in sample(one, count=10, **COMMON)]))
    assert torch.equal(seen[:, 2], seen[:, 3])  # at t = 1 the mean is the x_0 predicted
    assert not torch.equal(seen[:, 0], seen[:, 3])


def test_interpolation_encodes_its_ends_and_gives_images_back() -> None:
    points = images(2)
    found = interpolate(chain(knows(points)), points, 5, [0.0, 1.0], **COMMON)
    assert found.dtype == torch.uint8 and torch.equal(found, points)
    shown = interpolate(chain(some_network()), points, 30, [0.0, 0.25, 0.5, 1.0], **COMMON)
    assert tuple(shown.shape) == (4, *IMAGES)


def test_images_that_a_codec_does_not_take_are_refused_by_it() -> None:
    with pytest.raises(UserError, match="must be even"):
        TILES.shape((1, 4, 5))


def test_a_bound_under_a_codec_that_loses_something_is_refused_before_any_training(monkeypatch) -> None:
    class Lossy(Tiles):
        name, lossless = "lossy", False

    monkeypatch.setitem(CODECS, "lossy", Lossy())
    of = (load_grid("table2"), "smoke", ["eps-mse-fixed"], [0])
    with pytest.raises(UserError, match=r"not defined for the codec 'lossy'.*bound_images=0"):
        plan(*of, ["diffusion.codec=lossy"])
    (job,) = plan(*of, ["diffusion.codec=lossy", "scoring.bound_images=0"])
    assert job.settings.diffusion.codec == "lossy"
