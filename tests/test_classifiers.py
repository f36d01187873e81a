"""Classifiers of noised images: trained, kept, told apart by what they are of, and guiding a checkpoint's samples."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_models import tiny_checkpoint, tiny_data

from ddpm_bench.config.classifiers import CLASSIFIERS, ClassifierSettings, ClassifierTraining
from ddpm_bench.config.sampling import SamplingSettings
from ddpm_bench.config.settings import DataSettings, NoiseSettings, ProcessSettings
from ddpm_bench.data import load_data
from ddpm_bench.data.images import ImageData
from ddpm_bench.errors import Interrupted, UserError
from ddpm_bench.experiment import classifiers as on_demand
from ddpm_bench.experiment.classifiers import make_classifier, named_classifier, train_if_missing
from ddpm_bench.measurement.measure import classes_checked
from ddpm_bench.measurement.samples import draw_samples, samples_depend_on
from ddpm_bench.models import classifiers as stored_ones
from ddpm_bench.models.classifiers import classifier_of, keep_file
from ddpm_bench.models.model import load_model
from ddpm_bench.networks.kept import write_network
from ddpm_bench.runtime.interrupt import Stop, ask_to_stop
from ddpm_bench.runtime.runtime import Runtime
from ddpm_bench.training.classifier import augmented

NOISE = NoiseSettings(T=6, beta_1=0.05, beta_T=0.7)  # of the tiny checkpoint
NETWORK = CLASSIFIERS["tiny"].network
SHORT = ClassifierTraining(network=NETWORK, steps=30, batch=16, learning_rate=5e-3, crops=0.8)


def labelled(folder: Path) -> str:
    """Dark, grey and bright images of 16x16; returns the --data for them."""
    rng = np.random.default_rng(0)
    labels = np.arange(90) % 3
    images = rng.integers(0, 60, (90, 16, 16), dtype=np.uint8) + (95 * labels).astype(np.uint8)[:, None, None]
    np.savez(
        folder / "three.npz", train=images[:60], test=images[60:], train_labels=labels[:60], test_labels=labels[60:]
    )
    return f"npz:{folder / 'three.npz'}"


@pytest.fixture(scope="module")
def three(tmp_path_factory) -> ImageData:
    return load_data(DataSettings(source=labelled(tmp_path_factory.mktemp("data")), size=16))


@pytest.fixture(scope="module")
def trained(three, tmp_path_factory) -> Path:
    """The file of a classifier, with its card."""
    path = tmp_path_factory.mktemp("classifier") / "three.safetensors"
    write_network(path, *make_classifier(three, NOISE, SHORT, Runtime()))
    return path


@pytest.fixture
def store(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(stored_ones, "STORE", tmp_path / "store")
    classifier_of.cache_clear()
    yield tmp_path / "store"
    classifier_of.cache_clear()


def test_it_learns_and_says_how_well_by_noise(trained, three):
    card = json.loads(trained.with_suffix(".json").read_text())
    accuracy = {int(t): share for t, share in card["accuracy"].items()}
    assert list(accuracy) == [1, 2, 3, 5, 6]
    assert min(accuracy.values()) > 0.6  # of three classes
    assert card["of"]["classes"] == ["0", "1", "2"] and card["data_sha256"] == three.sha256
    again, _ = make_classifier(three, NOISE, SHORT, Runtime())
    assert again == trained.read_bytes()
    other, _ = make_classifier(three, NOISE, SHORT.model_copy(update={"steps": 2}), Runtime())
    assert other != again


def test_random_crops_are_squares_within_the_image():
    ramp = torch.arange(64, dtype=torch.uint8).mul(4).expand(200, 1, 64, 64)
    generator = torch.Generator().manual_seed(0)
    made = augmented(ramp, SHORT.model_copy(update={"flips": False}), generator).double()
    share = (made[:, 0, 0, 60] - made[:, 0, 0, 3]) / (57 * 4)
    assert 0.79 < share.min() < 0.83 and 0.97 < share.max() < 1.01
    assert made.min() == 0 and made.max() > 245
    same = augmented(ramp, SHORT.model_copy(update={"flips": False, "crops": 1.0}), generator)
    assert torch.equal(same, ramp)
    mirrored = augmented(ramp, SHORT.model_copy(update={"crops": 1.0}), generator)
    flipped = (mirrored == ramp.flip(3)).flatten(1).all(1)
    assert 60 < flipped.sum() < 140 and torch.equal(mirrored[~flipped], ramp[~flipped])


def test_without_labels_or_with_another_size_none_is_trained(tmp_path, call):
    data = load_data(DataSettings(source=tiny_data(tmp_path / "plain.npz"), size=16))
    with pytest.raises(UserError, match="has no labels, which a classifier is trained on"):
        make_classifier(data, NOISE, SHORT, Runtime())
    with pytest.raises(UserError, match="attention at side 32"):
        ClassifierSettings().check(16)
    with pytest.raises(UserError, match="cannot be halved so often"):
        ClassifierSettings(multipliers=(1, 1, 1, 1)).check(20)
    out = ("--out", tmp_path / "c.safetensors")
    done = call("classifier", "train", "--data", f"npz:{tmp_path / 'plain.npz'}", "--size", 16, *out)
    assert done.code == 2 and "'plain' has no labels" in done.err
    done = call("classifier", "train", "--kind", "tinny", "--size", 16, *out)
    assert done.code == 2 and "did you mean 'tiny'" in done.err
    done = call("classifier", "train", *out)
    assert done.code == 2 and "Give --size N, or --like MODEL" in done.err


def test_a_stop_leaves_nothing(three):
    with Stop(), pytest.raises(Interrupted):
        ask_to_stop()
        make_classifier(three, NOISE, SHORT, Runtime())


def test_scale_0_is_the_unguided_chain_bit_for_bit_and_others_are_not(trained, store, tmp_path):
    model, runtime = load_model(tiny_checkpoint(tmp_path / "model")), Runtime()
    plain = SamplingSettings(samples=6)
    guiding = plain.model_copy(update={"classifier": keep_file(trained)})
    drawn = {
        scale: draw_samples(model, guiding.model_copy(update={"classifier_scale": scale}), 0, runtime, tmp_path)
        for scale in (0.0, 30.0)
    }
    of_one = draw_samples(
        model, guiding.model_copy(update={"classifier_scale": 30.0, "labels": 2}), 0, runtime, tmp_path
    )
    assert torch.equal(drawn[0.0], draw_samples(model, plain, 0, runtime, tmp_path / "plain"))
    assert not torch.equal(drawn[30.0], drawn[0.0])
    assert torch.equal(of_one[[2, 5]], drawn[30.0][[2, 5]]) and not torch.equal(of_one[0], drawn[30.0][0])
    light = of_one.double().mean((1, 2, 3)) - drawn[0.0].double().mean((1, 2, 3))
    assert (light > 0).all()  # the class of bright images
    in_parts = draw_samples(
        model, guiding.model_copy(update={"classifier_scale": 30.0}), 0, Runtime(batch=4), tmp_path / "parts"
    )
    assert (in_parts.int() - drawn[30.0].int()).abs().max() <= 1


def test_what_samples_depend_on_names_the_classifier_by_its_hash(trained, store, tmp_path):
    model, runtime = load_model(tiny_checkpoint(tmp_path / "model")), Runtime()
    sha256 = keep_file(trained)
    plain = SamplingSettings(samples=6)
    guided = plain.model_copy(update={"classifier": sha256})
    off = guided.model_copy(update={"classifier_scale": 0.0})
    found, without, zero = (samples_depend_on(model.function, each, 0, runtime) for each in (guided, plain, off))
    assert zero == without
    assert found["sampling"]["classifier"] == {"scale": 1.0, "at": "x_t", "sha256": sha256}
    assert found["sampling"]["labels"] == "balanced"
    assert "classifier" not in without["sampling"]


def test_the_extractor_is_asked_whether_guidance_reached_the_class(trained, store, tmp_path):
    model = load_model(tiny_checkpoint(tmp_path / "model"))
    guided = SamplingSettings(samples=6, classifier=keep_file(trained))
    labelled = SimpleNamespace(labels=torch.arange(3))
    task = SimpleNamespace(
        data=SimpleNamespace(classes=("a", "b", "c"), train=labelled, test=labelled),
        extractor=SimpleNamespace(class_names=("a", "b", "c")),
    )
    task.sampling = guided
    assert classes_checked(model.function, task).at(1, 4).tolist() == [1, 2, 0, 1]
    task.sampling = guided.model_copy(update={"classifier_scale": 0.0})
    assert classes_checked(model.function, task) is None


@pytest.mark.parametrize(
    ("noise", "said"),
    [
        (NOISE.model_copy(update={"T": 7}), "T = 7 where the model has 6"),
        (NOISE.model_copy(update={"schedule": "cosine"}), "schedule = cosine where the model has linear"),
    ],
)
def test_a_classifier_of_other_noise_is_refused(three, store, tmp_path, noise, said):
    path = tmp_path / "other.safetensors"
    write_network(path, *make_classifier(three, noise, SHORT.model_copy(update={"steps": 1}), Runtime()))
    model = load_model(tiny_checkpoint(tmp_path / "model"))
    with pytest.raises(UserError, match=rf"other noise than the model: .*{said}"):
        model.chain(SamplingSettings(classifier=keep_file(path)))


def test_what_does_not_go_together_is_refused_by_name(trained, store, tmp_path):
    model = load_model(tiny_checkpoint(tmp_path / "model"))
    sha256 = keep_file(trained)
    classifier = classifier_of(sha256)
    with pytest.raises(UserError, match=r"takes x_t of \(C, H, W\) = \(1, 16, 16\), and the model's is \(3, 16, 16\)"):
        classifier.check(NOISE, (3, 16, 16))
    with pytest.raises(UserError, match=r"the sampler 'ddim' takes x_0 and eps.*ancestral, sigma-hat"):
        model.chain(SamplingSettings(classifier=sha256, gradient_at="mean", sampler="ddim"))
    with pytest.raises(UserError, match="the 3 classes of the classifier are numbered 0 to 2"):
        model.chain(SamplingSettings(classifier=sha256, labels=3))
    with pytest.raises(UserError, match="is not on this machine"):
        model.chain(SamplingSettings(classifier="0" * 64))
    for given in ({"classifier_scale": 2.0}, {"gradient_at": "x_t"}):
        with pytest.raises(ValueError, match="is of a classifier, and none is given"):
            SamplingSettings(**given)
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(trained.read_bytes()[:-40])
    with pytest.raises(UserError, match="is no classifier of ddpm-bench"):
        keep_file(damaged)
    assert not list(store.glob(".*"))


def test_one_that_is_named_is_trained_once_on_the_images_at_hand(three, store, monkeypatch):
    monkeypatch.setitem(on_demand.CLASSIFIERS, "tiny", SHORT.model_copy(update={"steps": 2}))
    process = ProcessSettings(**NOISE.model_dump(), parameterization="eps", variance="fixed")
    named = named_classifier(SamplingSettings(classifier="tiny"), process, three)
    assert named.classifier.startswith("tiny@") and not store.exists()
    assert named_classifier(named, process, three) == named
    train_if_missing(named.model_copy(update={"classifier_scale": 0.0}), process, three, Runtime())
    assert not store.exists()
    train_if_missing(named, process, three, Runtime())
    made = stored_ones.stored(named.classifier)
    before = made.stat().st_mtime_ns
    train_if_missing(named, process, three, Runtime())
    assert made.stat().st_mtime_ns == before and classifier_of(named.classifier).classes == 3
    cosine = process.model_copy(update={"schedule": "cosine"})
    assert named_classifier(SamplingSettings(classifier="tiny"), cosine, three).classifier != named.classifier
    with pytest.raises(UserError, match="is of other data, noise or settings"):
        train_if_missing(named.model_copy(update={"classifier": "tiny@" + "0" * 16}), process, three, Runtime())
    with pytest.raises(UserError, match="no classifier 'tinny'"):
        named_classifier(SamplingSettings(classifier="tinny"), process, three)
    unlabelled = replace(three, train=replace(three.train, labels=None))
    with pytest.raises(UserError, match="has no labels"):
        named_classifier(SamplingSettings(classifier="tiny"), process, unlabelled)


def test_from_training_to_guided_samples_at_the_command_line(tmp_path, store, monkeypatch, call):
    ckpt, out = tiny_checkpoint(tmp_path / "model"), tmp_path / "three.safetensors"
    train = ("classifier", "train", "--data", labelled(tmp_path), "--kind", "tiny", "--steps", 3, "--batch", 8)
    done = call(*train, "--like", ckpt, "--out", out, "--json")
    assert done.code == 0, done.err
    card = json.loads(done.out)
    assert card["of"]["noise"] == NOISE.model_dump() and "of the test images it tells apart" in done.err
    sample = ("sample", "--ckpt", ckpt, "--samples", 4, "--json")
    done = call(*sample, "--classifier", out, "--classifier-scale", 2, "--labels", 1, "--out", tmp_path / "a.npz")
    assert done.code == 0, done.err
    made = json.loads(done.out)
    assert made["classifier"] == {"scale": 2.0, "at": "x_t", "sha256": card["sha256"]}
    assert "all to class 1" in done.err
    assert np.load(tmp_path / "a.npz")["labels"].tolist() == [1, 1, 1, 1]
    done = call(*sample, "--classifier-scale", 2, "--out", tmp_path / "b.npz")
    assert done.code == 2 and "none is given" in done.err
