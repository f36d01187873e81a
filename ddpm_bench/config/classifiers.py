"""The settings of classifiers of noised images, by which samples are guided (Dhariwal, Nichol 2021). No torch is imported."""

from typing import Annotated

from pydantic import Field

from ddpm_bench.config.limits import LARGEST_SEED, MOST_STEPS
from ddpm_bench.config.networks import Settings, UNetSettings
from ddpm_bench.errors import UserError


class ClassifierSettings(Settings):
    """The first half of a U-Net in the dialect of guided-diffusion, and attention pooling over what it ends with.

    base: of the time embedding; a level has base * multiplier channels. attention: the sides at which every block has
    self-attention, which the middle has, too. groups: of every GroupNorm. head_channels: channels of an attention head.
    """

    base: int = Field(128, ge=2, le=8192)
    multipliers: tuple[Annotated[float, Field(gt=0, le=64)], ...] = Field((1, 2, 3, 4), min_length=1, max_length=11)
    blocks: int = Field(2, ge=1, le=32)
    attention: tuple[int, ...] = Field((32, 16, 8), max_length=11)
    groups: int = Field(32, ge=1, le=8192)
    head_channels: int = Field(64, ge=1, le=8192)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level."""
        return tuple(int(self.base * multiplier) for multiplier in self.multipliers)

    @property
    def in_blocks(self) -> UNetSettings:
        """The dialect of the U-Net's blocks that it is made of."""
        return UNetSettings(
            base=self.base, groups=self.groups, head_channels=self.head_channels, dropout=0.0, time_shift=0,
            scale_shift=True, resample="block", eps=1e-5,
        )  # fmt: skip

    def check(self, side: int) -> None:
        """UserError where x_t of `side` numbers a side cannot be halved often enough, or widths, groups, heads or attention do
        not fit."""
        levels = len(self.multipliers)
        if side % 2 ** (levels - 1):
            raise UserError(
                f"A classifier with the multipliers {list(self.multipliers)} halves the side {levels - 1} times, and {side} cannot be "
                "halved so often. Use another size, or fewer multipliers."
            )
        sides = [side >> level for level in range(levels)]
        for attended in self.attention:
            if attended not in sides:
                raise UserError(
                    f"attention at side {attended}: the levels of this classifier have sides {sides}; choose among these."
                )
        for width, multiplier, at in zip(self.widths, self.multipliers, sides, strict=True):
            if width != self.base * multiplier or width % self.groups:
                raise UserError(
                    f"A level of {self.base * multiplier:g} channels cannot be shared out among {self.groups} groups; choose another "
                    "base, or groups that divide it."
                )
            if (at in self.attention or at == sides[-1]) and width % self.head_channels:
                raise UserError(
                    f"The {width} channels of a level cannot be shared out among heads of {self.head_channels}; choose a divisor."
                )


class ClassifierTraining(Settings):
    """A classifier and how it is trained: with weights from `seed`, the images and the noise, all that its weights depend on.

    AdamW, the learning rate falling linearly to 0. crops: the least side of a random square crop, in sides of the image, to whose
    size it is brought again; 1 for none. flips: half of the images are mirrored.
    """

    network: ClassifierSettings = ClassifierSettings()
    steps: int = Field(300_000, ge=1, le=MOST_STEPS)
    batch: int = Field(256, ge=1, le=100_000)
    learning_rate: float = Field(3e-4, gt=0)
    weight_decay: float = Field(0.05, ge=0)
    crops: float = Field(0.8, gt=0, le=1)
    flips: bool = True
    seed: int = Field(0, ge=0, le=LARGEST_SEED)


def _small(base: int, groups: int, steps: int, batch: int, learning_rate: float) -> ClassifierTraining:
    network = ClassifierSettings(
        base=base, multipliers=(1, 2), blocks=1, attention=(8,), groups=groups, head_channels=8
    )
    return ClassifierTraining(
        network=network, steps=steps, batch=batch, learning_rate=learning_rate, crops=1, flips=False
    )


CLASSIFIERS: dict[str, ClassifierTraining] = {
    "tiny": _small(base=8, groups=4, steps=60, batch=32, learning_rate=5e-3),
    "small": _small(base=16, groups=8, steps=1000, batch=64, learning_rate=2e-3),
    "adm-64": ClassifierTraining(network=ClassifierSettings(blocks=4)),
    "adm-128": ClassifierTraining(network=ClassifierSettings(multipliers=(1, 1, 2, 3, 4))),
    "adm-256": ClassifierTraining(network=ClassifierSettings(multipliers=(1, 1, 2, 2, 4, 4))),
    "adm-512": ClassifierTraining(network=ClassifierSettings(multipliers=(0.5, 1, 1, 2, 2, 4, 4))),
}
"""By name: small ones for images of 16x16, and those of the release by the side of their images, with the training that was published
for 128."""
