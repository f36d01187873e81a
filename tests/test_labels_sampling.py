"""Classes asked of a network: samples, bounds and likelihoods of each, and scores."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusion_cases import gaussian_eps
from test_labels import DIFFUSION, images
from tiny_models import tiny_checkpoint
from torch import Tensor

from ddpm_bench.config.metrics import AGREEMENT, OF_DATA_SETS
from ddpm_bench.config.sampling import SamplingSettings
from ddpm_bench.config.settings import DataSettings, ScoringSettings
from ddpm_bench.data import load_data
from ddpm_bench.diffusion.denoiser import Denoiser
from ddpm_bench.diffusion.sample_labels import SampleLabels
from ddpm_bench.diffusion.samplers import Chain, sample
from ddpm_bench.likelihood import bits_per_dim, estimate_bits_per_dim
from ddpm_bench.likelihood.ode import Solving, ode_bits_per_dim
from ddpm_bench.measurement.measure import Task, classes_checked
from ddpm_bench.measurement.samples import samples_depend_on
from ddpm_bench.metrics.class_wise import Classes
from ddpm_bench.metrics.extractors import load_extractor
from ddpm_bench.metrics.fidelity import scores
from ddpm_bench.models.model import load_model
from ddpm_bench.networks.condition import Condition
from ddpm_bench.runtime.runtime import Runtime

# ---- sampling -------------------------------------------------------------------------------------------------------------


def by_class(*networks):
    """A network that is another one for each class."""

    def network(x: Tensor, step: Tensor, condition: Condition) -> Tensor:
        made = torch.stack([of(x, step) for of in networks])
        return made[condition.labels, torch.arange(len(x))]

    return network


def gaussians(*means: float) -> list:
    """The optimal networks of data N(mean, 0.25)."""
    return [gaussian_eps(DIFFUSION.schedule, mean, 0.25) for mean in means]


def test_which_class_a_sample_is_of_follows_from_its_index_alone() -> None:
    assert SampleLabels(3).at(4, 5).tolist() == [1, 2, 0, 1, 2] and SampleLabels(3, 2).at(4, 2).tolist() == [2, 2]
    networks = gaussians(-0.8, 0.0, 0.8)
    chain = Chain(Denoiser(DIFFUSION, by_class(*networks), (1, 2, 2)), labels=SampleLabels(3))
    whole = torch.cat([made for _, made in sample(chain, count=7, seed=1, runtime=Runtime(batch=7))])
    parts = [made for _, made in sample(chain, count=5, seed=1, first=2, runtime=Runtime(batch=2))]
    assert torch.equal(whole[2:], torch.cat(parts))
    for label, network in enumerate(networks):  # as of the unconditional model of its class
        alone = Chain(Denoiser(DIFFUSION, network, (1, 2, 2)))
        ((_, expected),) = sample(alone, count=7, seed=1, runtime=Runtime(batch=7))
        assert torch.equal(whole[label::3], expected[label::3])


def test_bounds_tell_each_image_its_own_class() -> None:
    """Against the unconditional model of each class: noise depends on an image's index, whatever its class."""
    given, networks = images(5)[:, :, :2, :2], gaussians(-0.3, 0.4)
    labels, runtime = torch.tensor([1, 0, 0, 1, 1]), Runtime(batch=2)
    told = Chain(Denoiser(DIFFUSION, by_class(*networks), (1, 2, 2), clip_x0=False))
    condition = Condition(labels)
    exact = bits_per_dim(told, given, seed=0, runtime=runtime, condition=condition).total
    first = estimate_bits_per_dim(told, given, seed=0, evals=7, runtime=runtime, condition=condition).first
    for label, network in enumerate(networks):
        alone, rows = Chain(Denoiser(DIFFUSION, network, (1, 2, 2), clip_x0=False)), labels == label
        expected = bits_per_dim(alone, given, seed=0, runtime=runtime)
        assert torch.equal(exact[rows], expected.total[rows])
        estimated = estimate_bits_per_dim(alone, given, seed=0, evals=7, runtime=runtime)
        assert torch.equal(first[rows], estimated.first[rows])
    assert (exact - bits_per_dim(alone, given, seed=0, runtime=runtime).total)[labels == 0].abs().min() > 1e-3


def test_a_likelihood_by_the_ode_tells_each_image_its_own_class() -> None:
    given, networks = images(3)[:, :, :2, :2], [lambda x, step: 0.4 * x, lambda x, step: 0.1 - 0.2 * x]
    labels, how = (
        torch.tensor([1, 0, 1]),
        {"seed": 0, "solving": Solving(draws=1, rtol=1e-3, atol=1e-3), "runtime": Runtime(batch=1)},
    )
    told = Chain(Denoiser(DIFFUSION, by_class(*networks), (1, 2, 2)))
    found = ode_bits_per_dim(told, given, condition=Condition(labels), **how).total
    for label, network in enumerate(networks):
        expected = ode_bits_per_dim(Chain(Denoiser(DIFFUSION, network, (1, 2, 2))), given, **how).total
        assert torch.equal(found[labels == label], expected[labels == label])
        assert (found - expected)[labels != label].abs().min() > 1e-2


def test_what_samples_depend_on_is_named_as_before_where_no_class_is_told(tmp_path: Path) -> None:
    plain, told = (load_model(tiny_checkpoint(tmp_path / str(k), classes=k)) for k in (0, 3))
    of = samples_depend_on(plain.function, SamplingSettings(), 0, Runtime())
    assert of["sampling"] == {"sampler": "ancestral", "steps": 6, "clip_x0": True}
    assert not {"classes", "null_class"} & of["network"].keys()
    balanced, one = (
        samples_depend_on(told.function, SamplingSettings(labels=labels), 0, Runtime())["sampling"]
        for labels in (None, 1)
    )
    assert (balanced["labels"], one["labels"]) == ("balanced", 1)


def test_the_command_writes_the_classes_that_it_asked_for(call, tmp_path: Path) -> None:
    ckpt = tiny_checkpoint(tmp_path / "told", classes=3)
    made = call("sample", "--ckpt", ckpt, "--samples", 7, "--device", "cpu", "--out", tmp_path / "a.npz", "--json")
    assert made.code == 0 and json.loads(made.out)["labels"] == "balanced"
    assert "sample i is of class i modulo 3" in made.out
    assert np.load(tmp_path / "a.npz")["labels"].tolist() == [0, 1, 2, 0, 1, 2, 0]
    out = tmp_path / "b.npz"
    assert call("sample", "--ckpt", ckpt, "--samples", 2, "--labels", 2, "--device", "cpu", "--out", out).code == 0
    assert np.load(out)["labels"].tolist() == [2, 2]
    chain = tmp_path / "chain.png"
    assert call("sample", "--ckpt", ckpt, "--progressive", "--samples", 2, "--device", "cpu", "--out", chain).code == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--labels", "3"], "the 3 classes of the network are numbered 0 to 2"),
        (["--labels", "cat"], "--labels 'cat' must be balanced or the number of a class"),
        (["--slerp", "0", "1", "--sampler", "ddim"], "Say which: --labels N"),
        (["--encode", "--data", "embedded", "--resize", "average"], "Say which: --labels N"),
    ],
)
def test_classes_that_cannot_be_asked_for_are_refused_by_name(call, messages, tmp_path: Path, options, said) -> None:
    ckpt = tiny_checkpoint(tmp_path / "told", classes=3)
    done = call("sample", "--ckpt", ckpt, "--device", "cpu", "--out", tmp_path / "a.png", *options)
    assert done.code == 2 and said in " ".join(done.err.split())


def test_classes_asked_of_a_model_without_are_refused(call, messages, tmp_path: Path) -> None:
    ckpt = tiny_checkpoint(tmp_path / "plain")
    done = call("sample", "--ckpt", ckpt, "--labels", "1", "--device", "cpu", "--out", tmp_path / "a.npz")
    assert done.code == 2 and "the network is told no classes. Leave it out." in " ".join(done.err.split())


# ---- scores ---------------------------------------------------------------------------------------------------------------


def test_class_agreement_is_the_accuracy_of_the_extractor_on_the_classes_asked_for(tmp_path: Path) -> None:
    real, extractor = (
        load_data(DataSettings(size=16, resize="average")),
        load_extractor("embedded", size=16, cache=tmp_path),
    )
    rows = torch.arange(300) * len(real.test) // 300
    shown, asked = real.test.images[rows], real.test.labels[rows]
    scoring = ScoringSettings(extractor="embedded", precision_recall=False, bootstrap=40)

    def of(told: Tensor) -> Classes:
        return Classes(told, real.train.labels[:300], real.classes, known=True)

    found, plain = (
        scores(shown, real.train.images[:300], extractor, scoring, Runtime(), classes=told)
        for told in (of(asked), None)
    )
    share = found.metrics.pop("class_agreement")
    assert found.metrics == plain.metrics and 0.85 < share < 0.95  # 0.91 of all test images, its card says
    low, *_, high = found.quantiles["class_agreement"]
    assert low < share < high
    shifted = scores(shown, real.train.images[:300], extractor, scoring, Runtime(), classes=of((asked + 1) % 10))
    assert shifted.metrics["class_agreement"] < 0.1
    parts = [one.samples * one.metrics["class_agreement"] for one in found.classes]
    assert sum(parts) == pytest.approx(share * 300) and plain.classes == ()


def test_classes_are_checked_where_the_extractor_knows_those_of_the_data_and_some_were_asked_for(
    tmp_path: Path,
) -> None:
    real, extractor = (
        load_data(DataSettings(size=16, resize="average")),
        load_extractor("embedded", size=16, cache=tmp_path),
    )
    told, plain = (load_model(tiny_checkpoint(tmp_path / str(k), classes=k)).function for k in (10, 0))
    task = Task(real, extractor, SamplingSettings(labels=3), ScoringSettings(), 0)
    assert classes_checked(told, task) == SampleLabels(10, 3)
    plainly = replace(task, sampling=SamplingSettings())
    assert classes_checked(told, plainly) == SampleLabels(10) and classes_checked(plain, plainly) is None
    assert classes_checked(told, replace(task, data=replace(real, classes=tuple("abcdefghij")))) is None
    assert AGREEMENT not in OF_DATA_SETS  # so that scores and anchors without it are found
