"""Progressive generation and interpolation: against closed forms, against `sample`, and as pictures of the command."""

import json

import numpy as np
import pytest
import torch
from diffusion_cases import SHORT, Given, Heard, chain_of, finite_eps, gaussian_eps, levels, some_network
from PIL import Image
from tiny_models import tiny_checkpoint, tiny_data

from ddpm_bench.data.images import to_model, to_uint8
from ddpm_bench.diffusion.chains import interpolate, progressive, stations
from ddpm_bench.diffusion.noise import BlockNoise
from ddpm_bench.diffusion.parameterization import Eps, Mu
from ddpm_bench.diffusion.process import q_sample
from ddpm_bench.diffusion.reverse import Diffusion
from ddpm_bench.diffusion.samplers import ANCESTRAL, sample
from ddpm_bench.diffusion.schedule import linear
from ddpm_bench.diffusion.variance import FixedBeta, FixedBetaTilde
from ddpm_bench.errors import Interrupted, UserError
from ddpm_bench.runtime.interrupt import Stop
from ddpm_bench.runtime.observer import observed_by
from ddpm_bench.runtime.runtime import Runtime

DIFFUSION = Diffusion(SHORT, Eps(), FixedBeta())
COMMON = {"seed": 3, "runtime": Runtime(batch=4)}
LAMBDAS = [0.0, 0.25, 0.5, 1.0]


def chain(network=None, diffusion=DIFFUSION, shape=(1, 4, 4)):
    return chain_of(diffusion, network or some_network(), shape)


def step(x_t, t, noise):
    """x_{t-1} of DIFFUSION with this draw of noise."""
    return ANCESTRAL.step(chain().denoiser, x_t, t, Given(noise)).x


def ends(seed: int = 0) -> torch.Tensor:
    return to_uint8(levels(2, 1, 4, 4, seed=seed))


def test_stations_go_evenly_from_T_to_0():
    assert stations(1000, 11) == [1000, 900, 800, 700, 600, 500, 400, 300, 200, 100, 0]
    assert stations(10, 4) == [10, 7, 3, 0]
    assert stations(3, 11) == [3, 2, 1, 0]


@pytest.mark.parametrize("parameterization", [Eps(), Mu()], ids=["eps", "mu"])
def test_progressive_generation_ends_with_the_samples_themselves(parameterization):
    diffusion = Diffusion(SHORT, parameterization, FixedBetaTilde())
    at = stations(SHORT.T, 6)
    seen = progressive(chain(diffusion=diffusion), count=6, at=at, **COMMON)
    samples = torch.cat([x for _, x in sample(chain(diffusion=diffusion), count=6, **COMMON)])
    assert seen.shape == (6, 6, 1, 4, 4)
    assert torch.equal(seen[:, -1], samples)
    assert not torch.equal(seen[:, 0], samples)


def test_progressive_generation_shows_the_prediction_from_x_t():
    x_t, noise = {}, BlockNoise(3, 0, 4, (1, 4, 4), "cpu")
    x_t[SHORT.T] = noise.draw()
    for t in range(SHORT.T, 0, -1):
        x_t[t - 1] = step(x_t[t], t, noise.draw())
    at = [20, 13, 1]
    seen = progressive(chain(), count=4, at=at, **COMMON)
    for column, t in enumerate(at):
        a = SHORT.alpha_bar[t - 1]
        eps = some_network()(x_t[t], torch.full((4,), t - 1)).double()
        assert torch.equal(seen[:, column], to_uint8((x_t[t] - (1 - a).sqrt() * eps) / a.sqrt()))


def test_weights_0_and_1_reconstruct_each_end_alone():
    between = interpolate(chain(), ends(), 7, [0.0, 0.5, 1.0], **COMMON)
    x0 = to_model(ends())
    for index, image in ((0, 0), (2, 1)):
        noise = BlockNoise(3, 0, 1, (1, 4, 4), "cpu")
        x = q_sample(SHORT, x0[image : image + 1], torch.tensor([7]), noise.draw())
        for t in range(7, 0, -1):
            x = step(x, t, noise.draw())
        assert torch.equal(between[index], to_uint8(x)[0])
    other = torch.stack([ends()[0], ends(seed=5)[1]])
    assert torch.equal(interpolate(chain(), other, 7, [0.0], **COMMON)[0], between[0])


def test_between_the_ends_the_noise_is_as_strong_as_at_them():
    seen = []

    def network(x, s):
        seen.append(x)
        return x

    zeros = torch.full((2, 1, 32, 32), 127, dtype=torch.uint8)
    interpolate(chain(network, shape=(1, 32, 32)), zeros, SHORT.T, LAMBDAS, **COMMON)
    expected = float(1 - SHORT.alpha_bar[-1]) ** 0.5
    assert seen[0].flatten(1).std(1).tolist() == pytest.approx([expected] * 4, rel=0.1)
    assert torch.allclose(seen[0][0], seen[0][2], atol=1e-5)


def test_with_gaussian_data_the_mean_of_interpolations_is_known():
    mean, variance, t = 0.1, 0.04, 12
    diffusion = Diffusion(SHORT, Eps(), FixedBetaTilde())
    images = torch.tensor([40, 190], dtype=torch.uint8).reshape(2, 1, 1, 1).expand(2, 1, 48, 48)
    a, b = to_model(images)[:, 0, 0, 0].double().tolist()
    found = interpolate(
        chain(gaussian_eps(SHORT, mean, variance), diffusion, (1, 48, 48)), images, t, LAMBDAS, **COMMON
    )
    # The chain is linear: x_{s-1} = posterior_xt x_s + posterior_x0 E[x_0 | x_s] + sigma z.
    slope, offset, spread = 1.0, 0.0, float(1 - SHORT.alpha_bar[t - 1])
    for s in range(t, 0, -1):
        bar, to_x0, to_xt = (float(x[s - 1]) for x in (SHORT.alpha_bar, SHORT.posterior_x0, SHORT.posterior_xt))
        gain = bar**0.5 * variance / (bar * variance + 1 - bar)  # E[x_0 | x_s] = mean + gain (x_s - sqrt(bar) mean)
        slope, offset = (
            (to_xt + to_x0 * gain) * slope,
            (to_xt + to_x0 * gain) * offset + to_x0 * mean * (1 - gain * bar**0.5),
        )
        spread = (to_xt + to_x0 * gain) ** 2 * spread + (float(SHORT.beta_tilde[s - 1]) if s > 1 else 0)
    for weight, x in zip(LAMBDAS, to_model(found).double(), strict=True):
        expected = slope * float(SHORT.alpha_bar[t - 1]) ** 0.5 * ((1 - weight) * a + weight * b) + offset
        assert x.mean().item() == pytest.approx(expected, abs=4 * (spread / x.numel()) ** 0.5)


def test_near_the_data_the_optimal_network_of_two_images_gives_back_its_sources():
    schedule = linear(50, 1e-4, 0.3)
    points = levels(2, 1, 4, 4)
    diffusion = Diffusion(schedule, Eps(), FixedBetaTilde())
    found = interpolate(chain(finite_eps(schedule, points), diffusion), to_uint8(points), 5, [0.0, 1.0], **COMMON)
    assert torch.equal(found, to_uint8(points))


def test_interpolations_depend_on_the_seed_and_not_on_the_batch():
    whole = interpolate(chain(), ends(), 9, LAMBDAS, seed=1, runtime=Runtime(batch=4))
    parts = interpolate(chain(), ends(), 9, LAMBDAS, seed=1, runtime=Runtime(batch=3))
    other = interpolate(chain(), ends(), 9, LAMBDAS, seed=2, runtime=Runtime(batch=4))
    assert (whole.int() - parts.int()).abs().max() <= 1
    assert not torch.equal(whole, other)


def test_progress_is_heard_and_a_stop_too():
    heard = Heard()
    with observed_by(heard):
        interpolate(chain(), ends(), 3, LAMBDAS, seed=1, runtime=Runtime(batch=3))
    assert heard.done == [3, 6, 9, 10, 11, 12]
    with Stop() as stop:
        stop.requested = True
        with pytest.raises(Interrupted):
            interpolate(chain(), ends(), 3, LAMBDAS, **COMMON)
    with pytest.raises(UserError, match="t = 21 is no step"):
        interpolate(chain(), ends(), 21, LAMBDAS, **COMMON)


class Through(torch.nn.Module):
    def forward(self, x, s):
        return x


def test_a_chain_left_early_puts_its_network_back():
    network = Through().train()
    noise = BlockNoise(0, 0, 1, (1, 2, 2), "cpu")
    steps = chain(network, shape=(1, 2, 2)).denoise(noise.draw(), 20, noise)
    assert next(steps).t == 20 and not network.training
    steps.close()
    assert network.training and not torch.is_inference_mode_enabled()


def picture(path, rows, columns, side=48, gap=3):
    """The 16x16 grey images of a labelled grid, enlarged three times: uint8 (rows, columns, 16, 16), and its text."""
    with Image.open(path) as image:
        pixels, about = np.asarray(image), json.loads(image.text["Description"])
    top, left = pixels.shape[0] - rows * (side + gap) - gap, pixels.shape[1] - columns * (side + gap) - gap
    cells = pixels[top + gap :, left + gap :]
    return np.array([
        [cells[y * (side + gap) :, x * (side + gap) :][:side:3, :side:3] for x in range(columns)] for y in range(rows)
    ]), about  # fmt: skip


@pytest.mark.parametrize("parameterization", ["eps", "mu"])
def test_the_picture_of_progressive_generation_ends_with_what_sample_writes(call, tmp_path, parameterization):
    ckpt = tiny_checkpoint(tmp_path / "tiny", parameterization=parameterization)
    drawn = call(
        "sample",
        "--ckpt",
        ckpt,
        "--progressive",
        "--samples",
        3,
        "--out",
        tmp_path / "p.png",
        "--json",
        "--device",
        "cpu",
    )
    call("sample", "--ckpt", ckpt, "--samples", 3, "--out", tmp_path / "s.npz", "--device", "cpu")
    images, about = picture(tmp_path / "p.png", 3, 7)
    assert drawn.code == 0 and json.loads(drawn.out) == about | {"out": str(tmp_path / "p.png")}
    assert about["t"] == [6, 5, 4, 3, 2, 1, 0] and about["weights"] == "ema"
    with np.load(tmp_path / "s.npz") as written:
        assert np.array_equal(images[:, -1], written["images"][..., 0])


def test_the_picture_of_an_interpolation_has_a_row_for_each_t_between_its_sources(call, tmp_path):
    ckpt, data = tiny_checkpoint(tmp_path / "tiny"), tiny_data(tmp_path / "data.npz")
    with np.load(tmp_path / "data.npz") as held:
        three = held["test"][3, 0]
        Image.fromarray(held["train"][0, 0]).save(tmp_path / "b.png")
        b = held["train"][0, 0]
    answer = call(
        "sample", "--ckpt", ckpt, "--interpolate", 3, tmp_path / "b.png", "--at", 6, "--at", 1, "--data", data, "--out",
        tmp_path / "i.png", "--device", "cpu",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    images, about = picture(tmp_path / "i.png", 2, 13)
    assert about["t"] == [6, 1] and about["lambda"] == [i / 10 for i in range(11)]
    assert np.array_equal(images[:, 0], [three, three]) and np.array_equal(images[:, -1], [b, b])
    near, far = np.abs(images[:, 1].astype(int) - three).mean(axis=(1, 2))[::-1]
    assert near < far
    call(
        "sample", "--ckpt", ckpt, "--interpolate", 3, 4, "--data", data, "--out", tmp_path / "d.png", "--device", "cpu"
    )
    assert picture(tmp_path / "d.png", 6, 13)[1]["t"] == [6, 5, 4, 3, 2, 1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--progressive", "--out", "folder"], "must be a .png file"),
        (["--progressive", "--out", "taken.png"], "exists already"),
        (["--progressive", "--at", "3", "--out", "p.png"], "--at goes with --interpolate alone"),
        (["--interpolate", "1", "2", "--progressive", "--out", "p.png"], "does not go with --interpolate"),
        (["--interpolate", "1", "2", "--out", "p.png"], "--data"),
        (["--interpolate", "1", "24", "--data", "DATA", "--out", "p.png"], "numbered 0 to 23"),
        (["--interpolate", "1", "2", "--at", "7", "--data", "DATA", "--out", "p.png"], "steps are 1 to 6"),
        (["--interpolate", "1", "2", "--at", "0", "--data", "DATA", "--out", "p.png"], "steps are 1 to 6"),
        (
            ["--interpolate", "1", "2", "--at", "4", "--steps", "3", "--data", "DATA", "--out", "p.png"],
            "steps are 1 to 3",
        ),
        (["--interpolate", "taken.png", "none.png", "--out", "p.png"], "(3, 16, 16)"),
        (["--interpolate", "none.png", "taken.png", "--out", "p.png"], "none.png"),
        (["--interpolate", "1", "2", "--data", "COLOUR", "--out", "p.png"], "Choose another --data"),
    ],
)
def test_a_mistake_is_said_and_nothing_is_written(call, monkeypatch, tmp_path, arguments, said):
    monkeypatch.chdir(tmp_path)
    ckpt = tiny_checkpoint(tmp_path / "tiny")
    given = {"DATA": tiny_data(tmp_path / "data.npz"), "COLOUR": tiny_data(tmp_path / "colour.npz", channels=3)}
    Image.new("RGB", (16, 16)).save("taken.png")
    before = sorted(tmp_path.iterdir())
    answer = call("sample", "--ckpt", ckpt, "--device", "cpu", *(given.get(word, word) for word in arguments))
    assert answer.code == 2 and said in " ".join(answer.err.split())
    assert sorted(tmp_path.iterdir()) == before
