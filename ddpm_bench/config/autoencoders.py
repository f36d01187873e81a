"""The settings of autoencoders, and those that a codec's name stands for. No torch is imported."""

from typing import Annotated, Literal

from pydantic import Field

from ddpm_bench.config.limits import LARGEST_SEED, MOST_STEPS
from ddpm_bench.config.networks import Settings, UNetSettings
from ddpm_bench.errors import UserError


class AutoencoderSettings(Settings):
    """What decides an autoencoder's function beside its weights: an encoder and a decoder as wide as each other.

    channels: of latents, of which the encoder gives mean and log variance. base, multipliers: the widths of its levels; each level
    after the first halves the side. blocks: residual blocks a level, one more in the decoder. groups: of every GroupNorm, whose
    eps is 1e-6. middle_attention: whether the smallest side has it, with one head. quant: 1x1 convolutions between encoder,
    latents and decoder, as the release has them.
    """

    channels: int = Field(4, ge=1, le=1024)
    base: int = Field(32, ge=2, le=8192)
    multipliers: tuple[Annotated[int, Field(ge=1, le=64)], ...] = Field((1, 2), min_length=1, max_length=8)
    blocks: int = Field(1, ge=1, le=32)
    groups: int = Field(8, ge=1, le=8192)
    middle_attention: bool = True
    quant: bool = True

    @property
    def factor(self) -> int:
        """Pixels a side of an image for one of its latents: f of the paper."""
        return 1 << len(self.multipliers) - 1

    @property
    def in_blocks(self) -> UNetSettings:
        """The dialect of the U-Net's blocks that it is made of."""
        return UNetSettings(
            base=self.base, multipliers=self.multipliers, blocks=self.blocks, attention=(),
            middle_attention=self.middle_attention, groups=self.groups, dropout=0.0,
        )  # fmt: skip

    def check(self) -> None:
        """UserError where groups do not divide the widths."""
        if self.base % self.groups:
            raise UserError(
                f"An autoencoder's groups = {self.groups} do not divide base = {self.base}; choose a divisor."
            )


class AutoencoderTraining(Settings):
    """An autoencoder and how it is trained: with weights from `seed` and the images, all that its weights depend on.

    loss: of pixels in [-1, 1]; "L1" is the release's, which has LPIPS and a discriminator beside it. kl_weight: of
    KL(q(z|x) || N(0, 1)). Both are summed over an image and divided by the batch. Adam, under one cycle of the learning rate.
    """

    network: AutoencoderSettings = AutoencoderSettings()
    loss: Literal["L1", "L2"] = "L1"
    kl_weight: float = Field(1e-6, ge=0)
    steps: int = Field(1000, ge=1, le=MOST_STEPS)
    batch: int = Field(64, ge=2, le=100_000)
    learning_rate: float = Field(2e-3, gt=0)
    seed: int = Field(0, ge=0, le=LARGEST_SEED)


MULTIPLIERS: dict[int, tuple[int, ...]] = {2: (1, 2), 4: (1, 2, 2), 8: (1, 2, 2, 2)}
"""By factor, those of `ddpm-bench autoencoder train` and of the codecs below."""


CHANNELS = {2: 2, 4: 3, 8: 4}
"""Of latents, by factor, as the release's configurations have them."""


def _of(factor: int, base: int, groups: int, steps: int, batch: int) -> AutoencoderTraining:
    network = AutoencoderSettings(channels=CHANNELS[factor], base=base, groups=groups, multipliers=MULTIPLIERS[factor])
    return AutoencoderTraining(network=network, steps=steps, batch=batch)


ON_DEMAND: dict[str, AutoencoderTraining] = {
    **{f"kl-f{factor}": _of(factor, base=16, groups=8, steps=1000, batch=64) for factor in MULTIPLIERS},
    **{f"tiny-kl-f{factor}": _of(factor, base=8, groups=4, steps=100, batch=16) for factor in MULTIPLIERS},
}
"""Codecs by name whose autoencoder is trained on a grid's own images when it is first needed, and kept: small ones, for small images."""


def plain_codec(codec: str) -> str:
    """A codec's name without the path that it may be given by: what settings say once the file is found."""
    return codec.partition(":")[0]
