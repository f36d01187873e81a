"""OpenAI's classifiers: what is converted against a forward pass written from the layout of their state dicts."""

import json
import re
from pathlib import Path

import pytest
import torch
from openai_layout import classifier_layout, classify, layout
from tiny_models import tiny_checkpoint

from ddpm_bench.config.classifiers import CLASSIFIERS
from ddpm_bench.config.settings import NoiseSettings
from ddpm_bench.errors import UserError
from ddpm_bench.models.classifiers import FILES, classifier_of, keep_file
from ddpm_bench.models.interop.openai_classifier import _architecture, read_classifier
from ddpm_bench.networks.classifier import NoisyClassifier
from ddpm_bench.networks.weights import outline

NOISE = NoiseSettings()
SMALL = dict(base=64, multipliers=(1, 2), blocks=1, attention=(1,), classes=5, pooled=4)


@pytest.fixture
def file(tmp_path: Path):
    def save(**changed) -> Path:
        torch.manual_seed(0)
        torch.save(classifier_layout(**SMALL | changed), tmp_path / "theirs.pt")
        return tmp_path / "theirs.pt"

    return save


@pytest.mark.parametrize(
    ("shape", "side", "halvings"),
    [({}, 8, [2]), ({"multipliers": (1, 1, 2), "blocks": 2, "attention": (0, 2), "pooled": 2}, 8, [3, 6])],
    ids=["two levels", "three levels"],
)
def test_the_converted_classifier_gives_the_originals_logits(file, shape, side: int, halvings: list[int]) -> None:
    path, x, steps = file(**shape), torch.randn(3, 3, side, side), torch.tensor([0, 17, 999])
    of, tensors, remarks = read_classifier(path, NOISE, side)
    network = of.outline()
    network.load_state_dict(tensors)
    with torch.no_grad():
        found = network(x, steps)
        expected = classify(torch.load(path), x, steps, heads=lambda width: width // 64, halvings=halvings)
    assert (found - expected).norm() < 1e-5 * expected.norm()
    assert (of.shape, of.classes, of.noise, remarks) == ((3, side, side), ("0", "1", "2", "3", "4"), NOISE, ())


@pytest.mark.parametrize("name", ["adm-64", "adm-128", "adm-256", "adm-512"])
def test_the_releases_classifiers_are_told_from_their_shapes(name: str) -> None:
    settings, side = CLASSIFIERS[name].network, int(name.removeprefix("adm-"))
    with outline():
        network = NoisyClassifier(3, 1000, side, settings)
    theirs = {
        "out.2.positional_embedding": network.pool.positions.t(),
        "time_embed.0.weight": network.time.hidden.weight,
    }
    theirs |= {"input_blocks.0.0.weight": network.first.weight}
    for number, layer in enumerate(network.down, 1):
        theirs[f"input_blocks.{number}.0.out_layers.3.weight"] = layer.conv2.weight
        if not isinstance(layer.attention, torch.nn.Identity):
            theirs[f"input_blocks.{number}.1.qkv.weight"] = layer.attention.qkv.weight
    assert _architecture(theirs, side, "it") == settings


def test_one_is_converted_at_the_command_line_and_guides_a_model_of_its_noise(
    file, tmp_path, call, monkeypatch
) -> None:
    monkeypatch.setattr("ddpm_bench.models.classifiers.STORE", tmp_path / "store")
    path = file(pooled=8)
    state = torch.load(path)
    state["input_blocks.0.0.weight"] = state["input_blocks.0.0.weight"][:, :1]
    torch.save({"ema": state}, path)
    ckpt, out = tiny_checkpoint(tmp_path / "model"), tmp_path / "mine.safetensors"
    done = call("classifier", "import", path, "--like", ckpt, "--out", out, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["noise"]["T"] == 6 and json.loads(done.out)["shape"] == [1, 16, 16]
    done = call("classifier", "import", path, "--size", 16, "--T", 6, "--out", tmp_path / "named.safetensors")
    assert done.code == 0 and "the file's entry 'ema' is taken" in done.err and "5 classes" in done.err, done.err
    done = call(
        "sample", "--ckpt", ckpt, "--samples", 2, "--classifier", out, "--labels", 4, "--out", tmp_path / "a.npz"
    )
    assert done.code == 0, done.err
    assert classifier_of(keep_file(out)).classes == 5
    of, _ = FILES.read(tmp_path / "named.safetensors", (tmp_path / "named.safetensors").read_bytes())
    assert of.noise == NoiseSettings(T=6)


def test_what_is_no_such_classifier_is_refused_in_words(file, tmp_path) -> None:
    path = file()
    with pytest.raises(UserError, match="pools 16 positions after 4 blocks, which x_t of side 12"):
        read_classifier(path, NOISE, 12)
    with pytest.raises(UserError, match="after 4 blocks, which x_t of side 16"):
        read_classifier(path, NOISE, 16)
    state = torch.load(path)
    torch.save(layout(base=32, multipliers=(1, 2), blocks=1, attention=(1,)), path)
    with pytest.raises(UserError, match=re.escape("Models go through `ddpm-bench import`")):
        read_classifier(path, NOISE, 8)
    state["middle_block.0.emb_layers.1.weight"] = state["middle_block.0.emb_layers.1.weight"][:128]
    torch.save(state, path)
    with pytest.raises(UserError, match="without --classifier_use_scale_shift_norm"):
        read_classifier(path, NOISE, 8)
