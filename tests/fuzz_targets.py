"""Everything that reads what people bring: a valid input of each kind, its reader, and what must hold of what is read."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import safetensors.torch
import torch
from fuzz_text import nested_toml, toml_value
from fuzzing import Folder, changed
from openai_layout import classifier_layout
from openai_layout import layout as openai_layout
from PIL import Image
from records import make_record
from test_interop_ddim import layout as ddim_layout
from test_interop_ddim import trained
from test_interop_diffusers import pipeline, unet
from test_interop_dit import SMALL as SMALL_DIT
from test_interop_dit import layout as dit_layout
from test_interop_dit_pipeline import PROCESS, pixels
from test_interop_openai import FLAGS
from test_interop_pytorch_ddpm import checkpoint
from test_interop_pytorch_ddpm import layout as pytorch_ddpm_layout
from test_report_checkpoints import make_row
from tiny_models import PRESET, tiny_checkpoint

from ddpm_bench.cli.options import numbers, words
from ddpm_bench.config.networks import UNetSettings
from ddpm_bench.config.settings import DataSettings, DiffusionSettings, NoiseSettings
from ddpm_bench.config.shipped import load_grid, shipped_grids
from ddpm_bench.data import load_data, read_images
from ddpm_bench.experiment.ablate import plan
from ddpm_bench.files import sha256_file
from ddpm_bench.metrics.extractors import load_extractor
from ddpm_bench.metrics.inception import read_weights
from ddpm_bench.metrics.small_cnn import FEATURES, Card, SmallCNN, write_extractor
from ddpm_bench.models.build import build_diffusion, build_network
from ddpm_bench.models.interop import UserSays, describe, import_checkpoint
from ddpm_bench.models.interop.openai_classifier import read_classifier
from ddpm_bench.models.model import Model, load_model
from ddpm_bench.networks.condition import Condition
from ddpm_bench.records.record import read_record, write_record
from ddpm_bench.records.row import read_row, write_row
from ddpm_bench.training import snapshots
from ddpm_bench.training.snapshots import load_state

TINY = dict(base=32, multipliers=(1, 2), blocks=1, attention=(1,))


@dataclass(frozen=True)
class Target:
    """A reader.

    make: writes a valid input into a folder. read: reads it there and checks what came out; a UserError is an answer too, and
    whatever else is raised is a fault. share: of all inputs. change: an input gone wrong.
    """

    name: str
    make: Callable[[Path], object]
    read: Callable[[Path], object]
    share: float = 1
    change: Callable[[Random, Folder], Folder] = changed


def check_images(images: torch.Tensor) -> None:
    assert images.dtype == torch.uint8 and images.ndim == 4 and images.shape[1] in (1, 3) and images.numel()


def picture(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)).save(path)


def make_pictures(folder: Path) -> None:
    for number, suffix in enumerate(("png", "png", "jpg", "webp")):
        picture(folder / f"{number}.{suffix}", number)


def make_classes(folder: Path) -> None:
    for number, name in enumerate(("train/cat", "train/dog", "test/cat", "test/dog")):
        picture(folder / "set" / name / "1.png", number)


def read_data(source: str) -> None:
    data = load_data(DataSettings(source=source, size=8))
    for split in (data.train, data.test):
        check_images(split.images)
        if split.labels is not None:
            assert len(split.labels) == len(split.images) and split.labels.min() >= 0
            assert not data.classes or split.labels.max() < len(data.classes)


def make_npz(folder: Path) -> None:
    images, labels = np.arange(256, dtype=np.uint8).reshape(4, 8, 8), np.array([0, 1, 1, 0])
    named = {"classes": np.array(["cat", "dog"]), "train_labels": labels, "test_labels": labels[:2]}
    np.savez_compressed(folder / "set.npz", train=images, test=images[:2], **named)


def make_samples(folder: Path) -> None:
    np.savez(folder / "samples.npz", images=np.arange(384, dtype=np.uint8).reshape(2, 8, 8, 3))


def check_model(model: Model) -> None:
    """It predicts, and is what its folder says."""
    chain = model.chain(model.sampling)
    channels, height, width = model.shape
    x_t, step = torch.zeros(1, channels, height, width), chain.denoiser.diffusion.schedule.network_steps[:1]
    classes = getattr(model.network_settings, "classes", 0)
    with torch.no_grad():
        made = model.network(x_t, step, *((Condition(torch.tensor([0])),) if classes else ()))
    assert made.shape == (1, channels * model.diffusion.variance.outputs, height, width)
    assert math.prod(model.shape) and model.function and model.parameters


def read_ours(folder: Path) -> None:
    model = load_model(folder / "ours")
    held = safetensors.torch.load_file(folder / "ours" / "weights.safetensors")
    assert all(
        torch.allclose(value, held[name], rtol=0, atol=0, equal_nan=True)
        for name, value in model.network.state_dict().items()
    )
    check_model(model)


def make_snapshot(folder: Path) -> None:
    process = DiffusionSettings(
        parameterization="eps", variance="fixed", objective="L-simple", T=6, beta_1=0.05, beta_T=0.7
    )
    network = UNetSettings(base=4, multipliers=(1,), blocks=1, attention=(), groups=2)
    weights = build_network(network, (1, 16, 16), build_diffusion(process)).state_dict()
    identity = {"data": DataSettings(size=16).model_dump(mode="json"), "diffusion": process.model_dump(mode="json")}
    identity |= {"network": network.model_dump(mode="json"), "seed": 0, "data_sha256": "0" * 64, "channels": 1}
    state = {"seed": 0, "identity": identity, "seconds": 1.5, "log": [], "tick": {"means": [0.0, 0.0], "seconds": 1.0}}
    state["sampling"] = {"samples": 4}
    snapshots.save(folder / "run", 7, {"network": weights, "ema": weights}, state, keep=2)


def make_unsealed(folder: Path) -> None:
    """A snapshot of an older version, without hashes: what it says reaches its reader."""
    make_snapshot(folder)
    path = folder / "run" / "step-000007" / snapshots.STATE
    state = {key: value for key, value in json.loads(path.read_text()).items() if key not in ("files", "seal")}
    path.write_text(json.dumps(state | {"format": snapshots.UNSEALED}))


def read_snapshot(folder: Path) -> None:
    for path in (folder / "run").glob("step-*"):
        load_state(path)
    check_model(load_model(folder / "run"))


def read_foreign(name: str, **asked: object) -> Callable[[Path], None]:
    def read(folder: Path) -> None:
        out = folder / "out"
        card = import_checkpoint(str(folder / name), out, UserSays(**asked))
        assert describe(card)
        check_model(load_model(out, raw=card.weights == "raw"))

    return read


def make_openai(folder: Path) -> None:
    torch.save(openai_layout(**TINY), folder / "theirs.pt")


def make_pytorch_ddpm(folder: Path) -> None:
    torch.save(checkpoint(pytorch_ddpm_layout(**TINY, T=20)), folder / "theirs.pt")


def make_ddim(folder: Path) -> None:
    torch.save(trained(ddim_layout(**TINY)), folder / "theirs.pth")


def make_dit(folder: Path) -> None:
    torch.save({"ema": dit_layout(**SMALL_DIT)}, folder / "theirs.pt")


def make_classifier(folder: Path) -> None:
    torch.save(classifier_layout(64, (1, 2), 1, (1,), classes=3, pooled=4), folder / "theirs.pt")


def read_foreign_classifier(folder: Path) -> None:
    of, tensors, _ = read_classifier(folder / "theirs.pt", NoiseSettings(), 8)
    network = of.outline()
    network.load_state_dict(tensors)
    assert network(torch.zeros(1, *of.shape), torch.tensor([0])).shape == (1, len(of.classes))


def make_bare_safetensors(folder: Path) -> None:
    safetensors.torch.save_file(openai_layout(**TINY), folder / "theirs.safetensors")


def make_diffusers(folder: Path) -> None:
    pipeline(folder / "theirs", unet(block_out_channels=(8, 16), norm_num_groups=4))


def make_extractor(folder: Path) -> None:
    network, size = SmallCNN(1, 2, (16,)), {16: 0.5}
    weights = safetensors.torch.save({name: value.contiguous() for name, value in network.state_dict().items()})
    card = Card(
        name="mine", sha256="", channels=1, sizes=(16,), classes=("a", "b"), feature_dim=FEATURES, parameters=1, test_accuracy=size,
        data_name="x", data_sha256={16: "0"}, train_images=1, test_images=1, seed=0, epochs=1, steps=1, batch=1, learning_rate=0.1,
        wall_time_s=1.0, versions={},
    )  # fmt: skip
    write_extractor(folder / "mine.safetensors", weights, card)


def read_extractor(folder: Path) -> None:
    """With the hash of its weights put right, as one who wants to be read would."""
    weights, card = folder / "mine.safetensors", folder / "mine.json"
    if weights.is_file() and card.is_file():
        card.write_bytes(card.read_bytes().replace(b'"sha256": ""', f'"sha256": "{sha256_file(weights)}"'.encode()))
    extractor = load_extractor(str(weights), size=16, cache=folder)
    features, logits = extractor.network(torch.zeros(2, extractor.channels, 16, 16, dtype=torch.uint8))
    assert features.shape == (2, extractor.info.feature_dim) and logits.shape[0] == 2


def make_inception(folder: Path) -> None:
    torch.save({"Conv2d_1a_3x3.conv.weight": torch.zeros(4, 3, 3, 3)}, folder / "weights.pth")


def read_grid(folder: Path) -> None:
    plan(load_grid(str(folder / "grid.toml")), "smoke", None, [0], [])


def read_preset(folder: Path) -> None:
    plan(load_grid("table2"), str(folder / "preset.toml"), None, [0], [])


def changed_words(random: Random, folder: Folder) -> Folder:
    """Words of a command line, which hold no NUL, with one of them changed."""
    [(name, content)] = folder.items()
    assert isinstance(content, bytes)
    lines = content.decode().split("\0")
    at = random.randrange(len(lines))
    what = random.randrange(4)
    key = lines[at].partition("=")[0]
    if what == 0:
        lines[at] = f"{key}={toml_value(random)}"
    elif what == 1:
        lines[at] = nested_toml(random, []).decode()
    elif what == 2:
        letters = list(lines[at])
        letters[random.randrange(len(letters))] = random.choice(
            ("", ",", "=", ".", "\n", "٣", "-", "\x1b", "'", '"', "9" * 30, "9" * 5000)
        )
        lines[at] = "".join(letters)
    else:
        lines[at] = random.choice(lines) + random.choice(("", ",", "x", "=1"))
    return {name: "\0".join(lines).encode("utf-8", "surrogatepass")}


def read_words(folder: Path) -> None:
    cells, seeds, *assignments = (folder / "words").read_text(encoding="utf-8", errors="surrogateescape").split("\0")
    plan(load_grid("table2"), "smoke", words(cells), numbers("--seeds", seeds), assignments)


def make_words(folder: Path) -> None:
    options = (
        "eps-mse-fixed,mu-L-learned",
        "0,1,2,4-9",
        "training.steps=40",
        "network.multipliers=[1,2]",
        "data.size=16",
        "training.clip=1.5",
    )
    (folder / "words").write_text("\0".join((*options, "sampling.clip_x0=true", "scoring.extractor=embedded")))


def rewritten(record: object, write: Callable[[Path, object], object], folder: Path) -> None:
    """What was accepted can be written again."""
    (folder / "again").mkdir()
    write(folder / "again", record)


TARGETS = (
    Target("pictures", make_pictures, lambda folder: check_images(read_images(folder)), 2),
    Target("data folder", make_classes, lambda folder: read_data(f"folder:{folder / 'set'}")),
    Target("data npz", make_npz, lambda folder: read_data(f"npz:{folder / 'set.npz'}"), 2),
    Target("samples npz", make_samples, lambda folder: check_images(read_images(folder / "samples.npz"))),
    Target("model", lambda folder: tiny_checkpoint(folder / "ours"), read_ours, 2),
    Target("snapshot", make_snapshot, read_snapshot),
    Target("older snapshot", make_unsealed, read_snapshot, 2),
    Target("openai .pt", make_openai, read_foreign("theirs.pt", flags=FLAGS)),
    Target("openai .safetensors", make_bare_safetensors, read_foreign("theirs.safetensors", flags=FLAGS)),
    Target("pytorch-ddpm .pt", make_pytorch_ddpm, read_foreign("theirs.pt")),
    Target("ddim .pth", make_ddim, read_foreign("theirs.pth", size=16)),
    Target("dit .pt", make_dit, read_foreign("theirs.pt", flags="--num_heads 3")),
    Target("openai classifier", make_classifier, read_foreign_classifier),
    Target("diffusers DiT", lambda folder: pixels(folder / "theirs"), read_foreign("theirs", process=PROCESS)),
    Target("diffusers", make_diffusers, read_foreign("theirs", process={"variance": "fixed-beta"})),
    Target("extractor", make_extractor, read_extractor),
    Target("inception weights", make_inception, lambda folder: read_weights(folder / "weights.pth", True), 0.5),
    Target("grid", lambda folder: (folder / "grid.toml").write_bytes(shipped_grids()["table2"].read_bytes()), read_grid),
    Target("preset", lambda folder: (folder / "preset.toml").write_text(PRESET), read_preset),
    Target("--cells, --seeds, --set", make_words, read_words, change=changed_words),
    Target(
        "record",
        lambda folder: write_record(folder, make_record(load_grid("table2"), "eps-mse-fixed")).rename(folder / "record.json"),
        lambda folder: rewritten(read_record(folder / "record.json"), write_record, folder),
    ),
    Target(
        "row",
        lambda folder: write_row(folder, make_row()),
        lambda folder: rewritten(read_row(folder / "theirs.json"), write_row, folder),
    ),
)  # fmt: skip
