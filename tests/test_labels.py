"""Classes told to a network: in its batches and its training, with some left out."""

from pathlib import Path

import pytest
import torch
from resumed import SETTINGS, goes_on_bitwise_the_same
from torch import Tensor, nn

from ddpm_bench.config.networks import MixedSettings, UNetSettings
from ddpm_bench.config.settings import CellSettings
from ddpm_bench.data.images import ImageData, Split
from ddpm_bench.data.labels import check_labels, labels_for
from ddpm_bench.diffusion.denoiser import Denoiser
from ddpm_bench.diffusion.objective import LSimple
from ddpm_bench.diffusion.parameterization import Eps
from ddpm_bench.diffusion.reverse import Diffusion
from ddpm_bench.diffusion.schedule import linear
from ddpm_bench.diffusion.times import Uniform
from ddpm_bench.diffusion.variance import FixedBeta
from ddpm_bench.errors import UserError
from ddpm_bench.networks.condition import Condition
from ddpm_bench.networks.mixed import Mixed
from ddpm_bench.networks.unet import UNet
from ddpm_bench.runtime import ranks
from ddpm_bench.training.batches import Batches, Labels
from ddpm_bench.training.trainer import Trainer, Training

CPU = torch.device("cpu")
PLAIN = UNetSettings(base=8, multipliers=(1,), blocks=1, attention=(), groups=2, dropout=0.1)
NETWORK = PLAIN.model_copy(update={"classes": 3, "null_class": True})
DIFFUSION = Diffusion(linear(10, 1e-2, 0.9), Eps(), FixedBeta())
LABELS = torch.arange(10) % 3


def images(count: int = 10) -> Tensor:
    return torch.randint(0, 256, (count, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def unet(settings: UNetSettings = NETWORK, outputs: int = 1) -> UNet:
    torch.manual_seed(0)
    return UNet(1, outputs, 8, settings)


def woken(network: nn.Module) -> nn.Module:
    """With last layers that do not begin at 0, so that outputs depend on all that the network is told."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)))
    return network.eval()


def batches(labels: Labels | None, size: int = 4, given: Tensor | None = None) -> Batches:
    given = images() if given is None else given
    return Batches(given, size, flips=True, seed=3, times=Uniform(10), device=CPU, labels=labels)


# ---- the network ----------------------------------------------------------------------------------------------------------


def test_a_class_is_a_row_added_to_the_time_embedding_and_all_else_begins_as_without() -> None:
    with_classes, plain = unet(), unet(PLAIN)
    state = with_classes.state_dict()
    assert state.pop("label.weight").shape == (4, 32)
    assert all(torch.equal(held, state[name]) for name, held in plain.state_dict().items())
    network = woken(with_classes)
    x, step, rows = torch.randn(3, 1, 8, 8), torch.tensor([0, 4, 9]), torch.tensor([2, 0, 3])
    found = network(x, step, Condition(rows))
    told = network.time.out.bias.detach().clone()
    for i in range(3):  # a class is a bias of the time embedding's last layer
        with torch.no_grad():
            network.time.out.bias.copy_(told + network.label.weight[rows[i]] - network.label.weight[0])
            alone = network(x[i : i + 1], step[i : i + 1], Condition(torch.tensor([0])))
            network.time.out.bias.copy_(told)
        torch.testing.assert_close(alone, found[i : i + 1], rtol=1e-4, atol=1e-5)


def test_a_network_is_never_told_classes_in_silence() -> None:
    x, step, labels = torch.zeros(1, 1, 8, 8), torch.tensor([0]), Condition(torch.tensor([1]))
    with pytest.raises(TypeError, match="3 classes is called without labels"):
        unet()(x, step)
    with pytest.raises(TypeError, match="0 classes is called with labels"):
        unet(PLAIN)(x, step, labels)


def test_a_mix_passes_labels_on_to_both_networks() -> None:
    settings = MixedSettings(network=NETWORK, below=3, above=7)
    assert (settings.told_classes, settings.no_class) == (3, 3)
    mixed = woken(Mixed(1, 1, 8, settings))
    x, step, labels = torch.randn(2, 1, 8, 8), torch.tensor([1, 5]), Condition(torch.tensor([2, 0]))
    found = mixed(x, step, labels)
    expected = torch.stack([mixed.ends(x, step, labels)[0], mixed.middle(x, step, labels)[1]])
    assert torch.equal(found, expected)
    inner = torch.tensor([5, 5])
    assert torch.equal(mixed(x, inner, labels), mixed.middle(x, inner, labels))


def test_what_is_told_no_classes_is_named_as_before_there_were_any() -> None:
    later = ("classes", "null_class", "small", "augmentation")
    assert PLAIN.named == {k: v for k, v in PLAIN.model_dump(mode="json").items() if k not in later}
    assert MixedSettings(network=PLAIN, below=1, above=2).named["network"] == PLAIN.named
    assert NETWORK.named["classes"] == 3 and NETWORK.named["null_class"] is True


# ---- batches --------------------------------------------------------------------------------------------------------------


def test_labels_are_those_of_the_images_and_change_no_other_draw() -> None:
    """Each image is one level, its number: so the label that goes with it is known."""
    given = torch.arange(10, dtype=torch.uint8)[:, None, None, None].expand(10, 1, 8, 8)
    plain, told = batches(None, given=given), batches(Labels(LABELS, 0.5, 3), given=given)
    for step in range(6):
        without, batch = plain.at(step), told.at(step)
        noise = torch.rand(3)
        plain.at(step)
        assert without.condition is None and torch.equal(noise, torch.rand(3))  # dropout's, too
        assert all(torch.equal(a, b) for a, b in zip(without[:3], batch[:3], strict=True))
        of = ((batch.x0[:, 0, 0, 0] + 1) * 127.5).round().long()
        kept = batch.condition.labels != 3
        assert torch.equal(batch.condition.labels[kept], LABELS[of][kept])


def test_labels_are_left_out_at_their_rate_each_image_by_itself() -> None:
    told, drawn = batches(Labels(torch.zeros(10, dtype=torch.int64), 0.2, 1), size=500, given=images()), []
    for step in range(20):
        drawn.append(told.at(step).condition.labels)
    left_out = torch.stack(drawn).double()  # (20, 500)
    assert abs(left_out.mean() - 0.2) < 4 * (0.2 * 0.8 / 10_000) ** 0.5
    counts = left_out.sum(1)  # binomial: were labels left out by the batch, 0 or 500
    assert 0.3 < counts.var() / (500 * 0.2 * 0.8) < 2.5
    assert torch.equal(told.at(7).condition.labels, drawn[7])


def test_each_rank_takes_its_slice_of_the_labels_too(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = batches(Labels(LABELS, 0.5, 3)).at(0)
    monkeypatch.setattr(ranks, "slice_of", lambda rows: rows.chunk(2)[1])
    own = batch.own()
    assert torch.equal(own.condition.labels, batch.condition.labels[2:]) and torch.equal(own.t, batch.t[2:])


# ---- training -------------------------------------------------------------------------------------------------------------


def trainer(folder: Path) -> Trainer:
    training = Training(
        Denoiser(DIFFUSION, unet(), (1, 8, 8), clip_x0=False),
        LSimple(),
        images(),
        SETTINGS,
        3,
        {"base": 8},
        labels=Labels(LABELS, 0.3, 3),
    )
    return Trainer(training, folder)


def test_a_conditional_run_goes_on_bitwise_the_same(tmp_path: Path) -> None:
    began = trainer(tmp_path / "new").network.label.weight.detach().clone()
    whole = goes_on_bitwise_the_same(trainer, tmp_path)
    assert (whole.network.label.weight != began).any(1).all()  # every class and none was trained


def cell(network: dict[str, object], dropout: float = 0.0) -> CellSettings:
    axes = {"parameterization": "eps", "variance": "fixed", "objective": "L_simple"}
    return CellSettings.model_validate(
        {"data": {"size": 16}, "diffusion": axes, "network": {"base": 32, **network}, "training": {"label_dropout": dropout},
         "sampling": {}, "scoring": {}}
    )  # fmt: skip


@pytest.mark.parametrize(
    ("network", "dropout", "said"),
    [
        ({}, 0.1, r"label_dropout = 0.1 .* give network.classes and network.null_class=true"),
        ({"classes": 10}, 0.1, r"label_dropout = 0.1 .* no label for that"),
        ({"classes": 10, "null_class": True}, 0.0, r"null_class = true is a label that nothing would train"),
        ({"null_class": True}, 0.1, r"null_class is a label beside those of classes"),
    ],
)
def test_a_class_that_is_not_told_and_its_dropout_go_together(network: dict, dropout: float, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        cell(network, dropout)
    assert cell({"classes": 10, "null_class": True}, 0.1).network.no_class == 10


def data(labels: Tensor | None = LABELS, classes: tuple[str, ...] = ()) -> ImageData:
    return ImageData("ten", Split(images(), labels), Split(images(), labels), "hash", classes)


def test_labels_that_the_data_does_not_have_are_refused_by_name() -> None:
    assert labels_for(0, data(None), "train") is None and torch.equal(labels_for(3, data(), "test"), LABELS)
    with pytest.raises(UserError, match=r"has 3 classes, and the data set 'ten' has no labels.*network.classes=0"):
        check_labels(3, data(None))
    with pytest.raises(UserError, match=r"has 4 classes, and the data set 'ten' has 3. Use network.classes=3"):
        check_labels(4, data())
    check_labels(5, data(classes=tuple("abcde")))
