"""The codec of latent diffusion: an identity autoencoder is pixel diffusion bit for bit, and others are what their files say."""

import hashlib
import math

import numpy as np
import pytest
import torch
from records import make_record
from torch import Tensor

from ddpm_bench.config.autoencoders import ON_DEMAND, AutoencoderSettings, AutoencoderTraining
from ddpm_bench.config.grid import Grid
from ddpm_bench.config.networks import UNetSettings
from ddpm_bench.config.preset import load_preset, resolve
from ddpm_bench.config.settings import ProcessSettings, TrainingSettings
from ddpm_bench.config.shipped import load_grid
from ddpm_bench.data import autoencoders
from ddpm_bench.data.autoencoders import keep, latents_of, packed, stored
from ddpm_bench.data.codec import CODECS, PIXELS, Codec
from ddpm_bench.data.images import ImageData, Split, to_model
from ddpm_bench.data.latents import Latents
from ddpm_bench.diffusion.denoiser import Denoiser
from ddpm_bench.diffusion.objective import OBJECTIVES, LSimple
from ddpm_bench.diffusion.parameterization import Eps
from ddpm_bench.diffusion.reverse import Diffusion
from ddpm_bench.diffusion.samplers import Chain, sample
from ddpm_bench.diffusion.schedule import linear
from ddpm_bench.diffusion.times import Uniform
from ddpm_bench.diffusion.variance import FixedBetaTilde
from ddpm_bench.errors import UserError
from ddpm_bench.experiment.ablate import plan
from ddpm_bench.experiment.autoencoders import with_autoencoders
from ddpm_bench.models.build import build_codec, build_diffusion, build_network
from ddpm_bench.models.model import function_of
from ddpm_bench.networks.autoencoder import Autoencoder, kl
from ddpm_bench.networks.weights import outline
from ddpm_bench.records.conditions import sorted_out
from ddpm_bench.records.record import common_settings
from ddpm_bench.runtime.runtime import Runtime
from ddpm_bench.training import posteriors
from ddpm_bench.training.autoencoder import first_batch, scale_of, train_autoencoder
from ddpm_bench.training.batches import Batches
from ddpm_bench.training.trainer import Trainer, Training

SCHEDULE = linear(8, 1e-2, 0.5)
CPU = torch.device("cpu")
SMALL = AutoencoderSettings(channels=3, base=4, groups=2, multipliers=(1, 2))


class Same:
    """z is the image, without any spread."""

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, torch.full_like(x, -math.inf)

    def decode(self, z: Tensor) -> Tensor:
        return z


class Spread(Same):
    """q(z|x) = N(x, 0.5^2)."""

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, torch.full_like(x, 2 * math.log(0.5))


IDENTITY = Latents("identity", 1, 1, Same())


@pytest.fixture(autouse=True)
def own_store(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(autoencoders, "STORE", tmp_path / "store")


def images(count: int = 12, side: int = 8) -> Tensor:
    return torch.randint(0, 256, (count, 1, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))


def data() -> ImageData:
    return ImageData("noise", Split(images(12)), Split(images(4)), "0" * 64)


def network(seed: int = 0) -> Autoencoder:
    torch.manual_seed(seed)
    made = Autoencoder(1, SMALL)
    with torch.no_grad():
        for parameter in made.parameters():  # nothing that begins at zero stays there
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made.requires_grad_(False).eval()


def trained(codec: Codec, folder) -> tuple[dict[str, Tensor], list[Tensor]]:
    """The weights of a small network after some steps, and samples."""
    diffusion, shape = Diffusion(SCHEDULE, Eps(), FixedBetaTilde()), codec.shape((1, 8, 8))
    unet = build_network(UNetSettings(base=4, multipliers=(1, 2), blocks=1, attention=(4,), groups=2), shape, diffusion)
    denoiser = Denoiser(diffusion, unet, shape, clip_x0=False, x0_range=codec.range)
    settings = TrainingSettings(steps=6, batch=4, learning_rate=1e-2, warmup=0, log_every=3)
    run = Trainer(Training(denoiser, LSimple(), images(), settings, 0, {}, codec), folder)
    assert run.run(6) is None
    chain = Chain(Denoiser(diffusion, run.ema_network(), shape, False, codec.range), codec=codec)
    return run.ema_network().state_dict(), [found for _, found in sample(chain, count=5, seed=1, runtime=Runtime())]


def test_an_identity_autoencoder_is_pixel_diffusion_bit_for_bit(tmp_path) -> None:
    (ours, samples), (theirs, others) = trained(IDENTITY, tmp_path / "latents"), trained(PIXELS, tmp_path / "pixels")
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert torch.equal(torch.cat(samples), torch.cat(others))


def drawn(codec: Codec, step: int = 0):
    return Batches(images(), 8, flips=True, seed=0, times=Uniform(8), codec=codec, device=CPU).at(step)


def test_z_is_drawn_anew_at_each_step_after_all_else_that_is_drawn() -> None:
    codec, scale = Latents("spread", 1, 1, Spread(), 2.0), 2.0
    for step in range(3):
        plain, batch = drawn(PIXELS, step), drawn(codec, step)
        assert torch.equal(batch.t, plain.t) and torch.equal(batch.eps, plain.eps)
        noise = (batch.x0 - scale * plain.x0) / (scale * 0.5)
        assert abs(noise.mean()) < 0.2 and abs(noise.std() - 1) < 0.15
    assert torch.equal(codec.encode(images()), scale * to_model(images()))  # its mean, where one encoding is wanted


@pytest.mark.parametrize("step", [0, 5])
def test_latents_that_are_kept_are_those_of_each_batch(monkeypatch, step: int) -> None:
    codec = Latents("small", 2, 3, network())
    kept = drawn(codec, step)
    monkeypatch.setattr(posteriors, "MOST", 0)
    assert torch.allclose(drawn(codec, step).x0, kept.x0, atol=1e-5)
    monkeypatch.undo()


def test_images_are_encoded_once() -> None:
    calls = []

    class Counting(Same):
        def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
            calls.append(len(x))
            return super().moments(x)

    batches = Batches(
        images(), 4, flips=True, seed=0, times=Uniform(8), codec=Latents("c", 1, 1, Counting()), device=CPU
    )
    assert not calls
    for step in range(4):
        batches.at(step)
    assert calls == [12, 12]  # as they are, and mirrored


def test_what_is_decoded_does_not_depend_on_the_scale() -> None:
    one, other = (Latents("small", 2, 3, network(), scale) for scale in (1.0, 0.125))
    assert torch.equal(other.encode(images()), 0.125 * one.encode(images()))
    assert torch.equal(one.decode(one.encode(images())), other.decode(other.encode(images())))


def test_the_scale_makes_the_latents_of_the_first_batch_one_wide() -> None:
    training = AutoencoderTraining(network=SMALL, batch=5)
    net, first = network(), first_batch(images(), training)
    scale = scale_of(net, first, seed=7)
    mean, log_variance = net.moments(to_model(first))
    z = mean + torch.exp(log_variance / 2) * torch.randn(mean.shape, generator=torch.Generator().manual_seed(7))
    assert float((scale * z).std()) == pytest.approx(1, abs=1e-6) and len(first) == 5


def test_kl_is_that_of_two_normals() -> None:
    assert kl(torch.zeros(2, 3, 1, 1), torch.zeros(2, 3, 1, 1)).tolist() == [0, 0]
    mean, deviation = np.array([0.3, -2.0]), np.array([0.5, 1.7])
    by_hand = sum(np.log(1 / s) + (s**2 + m**2) / 2 - 0.5 for m, s in zip(mean, deviation, strict=True))
    found = kl(torch.tensor(mean).reshape(1, 2, 1, 1), torch.tensor(2 * np.log(deviation)).reshape(1, 2, 1, 1))
    assert float(found) == pytest.approx(by_hand, abs=1e-12)


def test_training_makes_reconstructions_better_and_the_file_says_it_all() -> None:
    torch.manual_seed(0)
    ramp = torch.arange(8).mul(30).to(torch.uint8).expand(40, 1, 8, 8).clone() + torch.randint(
        0, 20, (40, 1, 8, 1), dtype=torch.uint8
    )
    split = Split(ramp)
    of = ImageData("ramps", split, Split(ramp[:6]), "1" * 64)
    training = AutoencoderTraining(network=SMALL, steps=30, batch=8, learning_rate=2e-2)
    content, card = train_autoencoder(of, training, Runtime())
    once = training.model_copy(update={"steps": 1})
    first, short = train_autoencoder(of, once, Runtime())
    assert card.reconstruction.psnr > short.reconstruction.psnr + 3 and card.reconstruction.images == 6
    assert train_autoencoder(of, once, Runtime())[0] == first and card.sha256 == hashlib.sha256(content).hexdigest()
    codec = latents_of(keep(content), "autoencoder")
    assert (codec.scale, codec.factor, codec.channels) == (card.scale, 2, 3)


def test_an_autoencoder_is_known_by_its_weights_its_scale_and_its_settings() -> None:
    known = {packed(network(seed), scale) for seed, scale in ((0, 1.0), (1, 1.0), (0, 0.5), (0, 1.0))}
    assert len(known) == 3
    sha256 = keep(packed(network(), 0.5))
    process = ProcessSettings(parameterization="eps", variance="fixed", codec="autoencoder", autoencoder=sha256)
    codec = build_codec(process)
    assert codec.shape((1, 8, 8)) == (3, 4, 4) and codec.scale == 0.5
    assert function_of("w", process, UNetSettings(), (1, 8, 8))["process"]["autoencoder"] == sha256
    plain = ProcessSettings(parameterization="eps", variance="fixed")
    assert "autoencoder" not in function_of("w", plain, UNetSettings(), (1, 8, 8))["process"]  # as before there was one


def test_an_autoencoder_that_is_not_here_or_is_damaged_is_asked_for() -> None:
    process = ProcessSettings(parameterization="eps", variance="fixed", codec="autoencoder", autoencoder="a" * 64)
    with pytest.raises(UserError, match=r"a{64}, which is not on this machine.*autoencoder add"):
        build_codec(process)
    sha256 = keep(packed(network(), 1.0))
    stored(sha256).write_bytes(stored(sha256).read_bytes()[:-1] + b"?")
    with pytest.raises(UserError, match="damaged"):
        build_codec(process.model_copy(update={"autoencoder": sha256}))


@pytest.mark.parametrize("content", [b"", b"x" * 100, packed(network(), -1.0)], ids=["empty", "other", "scale"])
def test_what_is_no_autoencoder_is_not_kept(content: bytes) -> None:
    with pytest.raises(UserError, match="is no autoencoder"):
        keep(content)
    assert not list(autoencoders.STORE.glob("*"))


def test_sides_and_channels_that_do_not_fit_are_refused_by_name() -> None:
    codec = Latents("kl-f4", 4, 4, image_channels=3)
    with pytest.raises(UserError, match="multiples of 4"):
        codec.shape((3, 30, 30))
    with pytest.raises(UserError, match="takes images of 3 channels"):
        codec.shape((1, 32, 32))
    with pytest.raises(UserError, match="not trained yet"):
        codec.encode(images())
    with pytest.raises(UserError, match="groups = 3 do not divide base = 4"):
        Autoencoder(1, AutoencoderSettings(base=4, groups=3))


def jobs_of(*assigned: str):
    of = ["scoring.bound_images=0", "sampling.clip_x0=false", "network.attention=[]", *assigned]
    return plan(load_grid("table2"), "smoke", ["eps-mse-fixed"], [0], of)


def test_a_path_becomes_a_hash_before_anything_is_run(tmp_path) -> None:
    path = tmp_path / "mine.safetensors"
    path.write_bytes(packed(network(), 1.0))
    (job,) = jobs_of(f"diffusion.codec=autoencoder:{path}")
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert (job.settings.diffusion.codec, job.settings.diffusion.autoencoder) == ("autoencoder", sha256)
    path.unlink()
    assert build_codec(job.settings.diffusion).shape((1, 16, 16)) == (3, 8, 8)


def test_a_name_is_trained_once_for_the_jobs_data(monkeypatch) -> None:
    tiny = AutoencoderTraining(network=SMALL, steps=2, batch=4)
    monkeypatch.setitem(ON_DEMAND, "kl-f2", tiny)
    jobs = jobs_of("diffusion.codec=kl-f2")
    assert jobs[0].settings.diffusion.autoencoder is None
    first = with_autoencoders(jobs, data(), Runtime())
    monkeypatch.setattr("ddpm_bench.experiment.autoencoders.train_autoencoder", None)
    assert with_autoencoders(jobs, data(), Runtime()) == first
    diffusion = first[0].settings.diffusion
    assert diffusion.codec == "kl-f2" and stored(diffusion.autoencoder).exists()
    assert with_autoencoders(first, data(), Runtime()) == first


@pytest.mark.parametrize(
    ("assigned", "said"),
    [
        (["diffusion.codec=kl-f2", "sampling.clip_x0=true"], "has no bounds.*clip_x0=false"),
        (["diffusion.codec=kl-f2", "scoring.bound_images=4"], "not defined for the codec 'kl-f2'"),
        (["diffusion.codec=kl-f2", "scoring.ode_images=4"], "not defined for the codec 'kl-f2'"),
        (["diffusion.codec=kl-f3"], "no codec 'kl-f3'.*did you mean"),
        (["diffusion.codec=autoencoder:"], "names no file"),
        (["diffusion.codec=autoencoder"], "needs a file"),
        (["diffusion.codec=autoencoder:nowhere.safetensors"], "Cannot read the autoencoder 'nowhere.safetensors'"),
        (["diffusion.codec=pixels", f"diffusion.autoencoder={'a' * 64}"], "'pixels' has no autoencoder"),
    ],
)
def test_what_does_not_go_together_is_refused_before_any_training(assigned: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        jobs_of(*assigned)


def test_images_that_a_codec_cannot_halve_so_often_are_refused_before_its_autoencoder_is_trained() -> None:
    odd = ImageData("odd", Split(images(side=9)), Split(images(side=9)), "2" * 64)
    with pytest.raises(UserError, match="multiples of 4"):
        with_autoencoders(jobs_of("diffusion.codec=kl-f4"), odd, Runtime())


def test_names_of_codecs_say_their_factor() -> None:
    for name, training in ON_DEMAND.items():
        side = 32 // training.network.factor
        assert CODECS[name].shape((1, 32, 32)) == (training.network.channels, side, side)
        assert name.endswith(f"kl-f{training.network.factor}")
        assert not CODECS[name].lossless and CODECS[name].random


def test_the_releases_churches_model_has_its_number_of_parameters_and_shapes() -> None:
    [cell] = load_grid("ldm").select(["f8"])
    settings = resolve(cell, load_preset("ldm-churches"), {})
    assert (settings.diffusion.codec, settings.training.batch, settings.network.attention) == (
        "autoencoder:kl-f8", 96, (32, 16, 8, 4),
    )  # fmt: skip
    first_stage = AutoencoderSettings(base=128, multipliers=(1, 2, 4, 4), blocks=2, groups=32)
    latents = CODECS["kl-f8"].shape((3, settings.data.size, settings.data.size))
    assert latents == (4, 32, 32) and first_stage.factor == 8
    diffusion = build_diffusion(settings.diffusion)
    with outline():
        unet = build_network(settings.network, latents, diffusion)
        autoencoder = Autoencoder(3, first_stage)
        z, _ = autoencoder.moments(torch.empty(1, 3, 256, 256))
        assert tuple(z.shape[1:]) == latents and unet.first.in_channels == unet.last.out_channels == 4
        assert tuple(autoencoder.decode(z).shape) == (1, 3, 256, 256)
    counts = [sum(parameter.numel() for parameter in network.parameters()) for network in (unet, autoencoder)]
    assert counts == [294_966_916, 83_653_863]  # the paper's 294 M; diffusers' of these settings has the latter


def test_cells_of_a_codec_share_a_table_and_one_cells_autoencoders_do_not_differ() -> None:
    grid = load_grid("ldm")
    pixels, two, again = (
        record_of(grid, cell, seed, sha256) for cell, seed, sha256 in (("f1", 0, None), ("f2", 0, "a"), ("f2", 1, "a"))
    )
    other = record_of(grid, "f2", 2, "b")
    kept, aside = sorted_out([pixels, two, again, other], grid)
    assert kept == [pixels, two, again]
    [one] = aside
    assert "diffusion.autoencoder: was " + "a" * 64 in one.why
    assert "autoencoder" not in common_settings(pixels.settings, pixels.axes)["diffusion"]


def record_of(grid: Grid, cell: str, seed: int, letter: str | None):
    made = make_record(grid, cell, seed=seed)
    diffusion = made.settings.diffusion.model_copy(update={"autoencoder": letter and letter * 64})
    return made.model_copy(update={"settings": made.settings.model_copy(update={"diffusion": diffusion})})


def test_latents_are_trained_by_squared_errors_and_by_bounds_that_train_the_variance_alone(messages, capsys) -> None:
    latents = Latents("kl", 2, 3)
    OBJECTIVES["L_simple"].check_codec(latents)
    assert not capsys.readouterr().err
    OBJECTIVES["L_hybrid-unscaled"].check_codec(latents)
    assert "taken for pixels there, which trains the variance alone" in " ".join(capsys.readouterr().err.split())
    for name, codec in (("L", latents), ("L_vlb", latents), ("L_hybrid", CODECS["unit"])):
        with pytest.raises(UserError, match=f"'{name}' does not go with the codec '{codec.name}'"):
            OBJECTIVES[name].check_codec(codec)
