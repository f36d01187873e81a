"""The settings of networks, by kind: the paper's U-Net, DiT, and whatever is entered in NETWORKS. No torch is imported."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import BeforeValidator, Field, SerializeAsAny, ValidationInfo, field_validator, model_validator

from ddpm_bench.config.limits import MOST_CLASSES, MOST_SIDE, MOST_T
from ddpm_bench.config.values import Frozen
from ddpm_bench.errors import UserError, near_miss


class Settings(Frozen):
    """What a user may set; a misspelt option cannot pass silently."""

    @classmethod
    def meant(cls, name: str, value: Any) -> Any:
        """What a value of the setting `name` stands for: "none" for no value, which TOML has no word for, where there may be none."""
        may_be_none = type(None) in get_args(cls.model_fields[name].annotation)
        return None if may_be_none and value == "none" else value

    @field_validator("*", mode="before")
    @classmethod
    def _meant(cls, value: Any, info: ValidationInfo) -> Any:
        return cls.meant(str(info.field_name), value)


class NetworkSettings(Settings):
    """What decides a network's function beside its weights. A kind of network is one subclass and its entry in NETWORKS.

    built_by: "module:Class" of the nn.Module, called as Class(in_channels, out_channels, side, settings); it is imported
    when a network is built, so that settings need no torch. It is also built on torch's device `meta`, without memory, to be
    compared with weights. The network is called as network(x_t, step) ->
    (B, out_channels, side, side), for x_t (B, in_channels, side, side) and the 0-based step (B,); initial values are drawn
    from torch's global generator. One that is told classes, or a small image, is called as network(x_t, step, condition), with a
    `networks.condition.Condition`.
    """

    built_by: ClassVar[str]
    kind: str

    @property
    def told_classes(self) -> int:
        """How many classes it is told apart by label; 0 where it takes no labels."""
        return 0

    @property
    def no_class(self) -> int | None:
        """The label that stands for none of the classes; None where it knows no such."""
        return None

    @property
    def told_small(self) -> int | None:
        """The side of the small image that it enlarges; None where it is told none."""
        return None

    @property
    def told_levels(self) -> int:
        """The highest level of noise that the small image may have; 0 where it is always clean."""
        return 0

    @property
    def named(self) -> dict[str, Any]:
        """JSON values that decide what it computes. What it is not told stays unnamed, so that what was kept before there was
        anything to tell is found."""
        return self.model_dump(mode="json")

    @property
    def in_words(self) -> str:
        """For people: what it is, in a line."""
        return ", ".join(f"{name} {value}" for name, value in self.model_dump(mode="json").items())

    def check(self, side: int) -> None:
        """UserError where the network cannot take x_t of `side` pixels."""


class LabelledSettings(NetworkSettings):
    """Of a network that may be told the class of each image.

    classes: so many; 0: it is told none. null_class: it has a further learned label, number `classes`, for images whose class it
    is not told.
    """

    classes: int = Field(0, ge=0, le=MOST_CLASSES)
    null_class: bool = False

    @property
    def told_classes(self) -> int:
        return self.classes

    @property
    def no_class(self) -> int | None:
        return self.classes if self.null_class else None

    @property
    def named(self) -> dict[str, Any]:
        labels = {"classes", "null_class"}
        return self.model_dump(mode="json", exclude=None if self.classes else labels)

    @model_validator(mode="after")
    def _null_class_of_classes(self) -> Self:
        if self.null_class and not self.classes:
            raise ValueError("null_class is a label beside those of classes; give network.classes, or leave it out")
        return self


class UNetSettings(LabelledSettings):
    """The paper's U-Net at any size, and the dialects of other releases; the defaults are the paper's.

    attention: the sides at which every block has self-attention; middle_attention: whether the middle has it, too.
    heads, head_channels: attention heads a layer, or channels a head where that is given. time_shift: the frequencies of the time
    embedding are 10000^(-i / (half - time_shift)). scale_shift: the time embedding scales the second norm's output and
    shifts it, instead of being added before it. padding: stride-2 convolutions pad at the "end" (right and bottom) or on
    "both" sides. resample: levels are joined by a "conv"olution or by a residual "block". eps: of every GroupNorm.
    small: the side of the image that it enlarges, as improved-diffusion's `SuperResModel`; None: it is told none.
    augmentation: the highest level S of the noise that the small image may have, of which it is then told (conditioning
    augmentation of "Cascaded Diffusion Models", Ho et al. 2021); 0: none.
    """

    built_by = "ddpm_bench.networks.unet:UNet"
    kind: Literal["unet"] = "unet"
    base: int = Field(128, ge=2, le=8192)
    multipliers: tuple[Annotated[int, Field(le=64)], ...] = Field((1, 2, 2, 2), max_length=11)
    blocks: int = Field(2, ge=1, le=32)
    attention: tuple[int, ...] = Field((16,), max_length=11)
    middle_attention: bool = True
    groups: int = Field(32, ge=1, le=8192)
    dropout: float = Field(0.1, ge=0, lt=1)
    heads: int = Field(1, ge=1, le=8192)
    head_channels: int | None = Field(None, ge=1, le=8192)
    time_shift: Literal[0, 1] = 1
    scale_shift: bool = False
    padding: Literal["end", "both"] = "end"
    resample: Literal["conv", "block"] = "conv"
    eps: float = Field(1e-6, gt=0)
    small: int | None = Field(None, ge=2, le=MOST_SIDE)
    augmentation: int = Field(0, ge=0, le=MOST_T)

    @property
    def told_small(self) -> int | None:
        return self.small

    @property
    def told_levels(self) -> int:
        return self.augmentation

    @property
    def named(self) -> dict[str, Any]:
        enlarging = ("small", "augmentation")
        return {name: value for name, value in super().named.items() if self.small or name not in enlarging}

    @property
    def in_words(self) -> str:
        enlarges = (
            f", told images of side {self.small} with noise of level 0 to {self.augmentation}" if self.small else ""
        )
        heads = f"{self.head_channels} channels a head" if self.head_channels else f"heads = {self.heads}"
        return (
            f"base {self.base} x {list(self.multipliers)}, {self.blocks} blocks a level, attention at "
            f"{sorted(self.attention, reverse=True)} with {heads}, norm eps {self.eps:g}, "
            f"time {'scales and shifts' if self.scale_shift else 'is added'}, resampling by {self.resample}{enlarges}"
        )

    @model_validator(mode="after")
    def _noise_of_a_small_image(self) -> Self:
        if self.augmentation and self.small is None:
            raise ValueError(
                f"augmentation = {self.augmentation} is noise of the small image that a network enlarges; give network.small, or leave "
                "it out"
            )
        return self

    def check(self, side: int) -> None:
        """UserError where the side cannot be halved often enough, or groups, attention sides, heads or the small image do not fit."""
        levels = len(self.multipliers)
        if self.small and (side % self.small or side == self.small):
            smaller = [each for each in range(side // 2, 1, -1) if side % each == 0][:4]
            raise UserError(
                f"network.small = {self.small}: images of side {side} are no multiple of it, twice its side or more; choose among "
                f"{', '.join(map(str, smaller))}."
            )
        if not levels or min(self.multipliers) < 1:
            raise UserError(f"multipliers {list(self.multipliers)} must be a positive number a level, as [1, 2, 2, 2].")
        if side % 2 ** (levels - 1):
            raise UserError(
                f"Images of side {side} cannot be halved {levels - 1} times for multipliers {list(self.multipliers)}; "
                f"use a multiple of {2 ** (levels - 1)} or fewer multipliers."
            )
        if self.base % self.groups:
            raise UserError(
                f"network.groups = {self.groups} does not divide base = {self.base}; choose a divisor of it."
            )
        sides = [side >> level for level in range(levels)]
        for attended in self.attention:
            if attended not in sides:
                raise UserError(
                    f"attention at side {attended}: the levels of this network have sides {sides}; choose among these."
                )
        with_heads = [m for each, m in zip(sides, self.multipliers, strict=True) if each in self.attention]
        in_middle = (self.multipliers[-1],) if self.middle_attention else ()
        for channels in (self.base * multiplier for multiplier in (*with_heads, *in_middle)):
            if channels % (self.head_channels or self.heads):
                raise UserError(
                    f"The {channels} channels of a level cannot be shared out among attention heads with heads "
                    f"= {self.heads}, head_channels = {self.head_channels}; choose a divisor."
                )


DIT_SIZES: dict[str, tuple[int, int, int]] = {
    "S": (12, 384, 6), "B": (12, 768, 12), "L": (24, 1024, 16), "XL": (28, 1152, 16),
}  # fmt: skip
"""Depth, width and heads of the sizes that the paper on DiT names; S/2 is S with patches of 2."""


class DiTSettings(LabelledSettings):
    """The transformer of "Scalable Diffusion Models with Transformers" (Peebles, Xie 2023); the defaults are its DiT-XL/2, without
    labels. `DIT_SIZES` has depth, width and heads of the others.

    depth: blocks. width: features of a token. heads: of attention, each with width / heads features. patch: the side of the
    patches that are tokens. mlp_ratio: hidden features of a block's MLP, as a multiple of the width.
    """

    built_by = "ddpm_bench.networks.dit:DiT"
    kind: Literal["dit"] = "dit"
    depth: int = Field(28, ge=1, le=256)
    width: int = Field(1152, ge=4, le=16384)
    heads: int = Field(16, ge=1, le=8192)
    patch: int = Field(2, ge=1, le=256)
    mlp_ratio: float = Field(4, ge=0.25, le=64)

    @property
    def hidden(self) -> int:
        """Hidden features of a block's MLP."""
        return round(self.mlp_ratio * self.width)

    def check(self, side: int) -> None:
        """UserError where the side is no multiple of the patch, or the width none of heads and of 4."""
        if side % self.patch:
            raise UserError(
                f"Images of side {side} cannot be cut into patches of {self.patch}; choose network.patch among the divisors "
                f"of {side}."
            )
        if self.width % self.heads:
            raise UserError(
                f"The width {self.width} of a token cannot be shared out among {self.heads} heads; choose network.heads among the "
                f"divisors of {self.width}."
            )
        if self.width % 4:
            raise UserError(
                f"network.width = {self.width} is no multiple of 4, and positions are sines and cosines of rows and columns."
                f" Take {self.width - self.width % 4 + 4}."
            )


def network_settings(values: Any) -> Any:
    """The settings of the kind of network that the values name; the paper's U-Net where they name none."""
    if not isinstance(values, Mapping):
        return values
    kind = values.get("kind", "unet")
    if not isinstance(kind, str) or kind not in NETWORKS:
        raise UserError(f"there is no kind of network '{kind}'{near_miss(str(kind), NETWORKS)}")
    return NETWORKS[kind].model_validate(values)


AnyNetworkSettings = Annotated[SerializeAsAny[NetworkSettings], BeforeValidator(network_settings)]


class MixedSettings(NetworkSettings):
    """Two networks of the same settings: `ends` at steps below `below` and from `above` on, `middle` between them.

    below, above: in the 0-based steps that networks are told, which `rescale_timesteps` changes. `ddpm-bench mix` makes it of
    two checkpoints: the combined model of "Improved DDPM" (Nichol, Dhariwal 2021).
    """

    built_by = "ddpm_bench.networks.mixed:Mixed"
    kind: Literal["mixed"] = "mixed"
    network: AnyNetworkSettings
    below: float = Field(ge=0)
    above: float = Field(ge=0)

    @field_validator("network", mode="before")
    @classmethod
    def _of_one(cls, values: Any) -> Any:
        if isinstance(values, MixedSettings) or (isinstance(values, Mapping) and values.get("kind") == "mixed"):
            raise ValueError(
                "a mix of networks that are mixed themselves cannot be had; mix those that they are made of"
            )
        return values

    @property
    def told_classes(self) -> int:
        return self.network.told_classes

    @property
    def no_class(self) -> int | None:
        return self.network.no_class

    @property
    def told_small(self) -> int | None:
        return self.network.told_small

    @property
    def told_levels(self) -> int:
        return self.network.told_levels

    @property
    def named(self) -> dict[str, Any]:
        return super().named | {"network": self.network.named}

    def check(self, side: int) -> None:
        """UserError where the steps of the middle end before they begin, or the networks cannot take x_t of `side` pixels."""
        if self.above < self.below:
            raise UserError(
                f"network.above = {self.above:g} is less than network.below = {self.below:g}; the middle lies between."
            )
        self.network.check(side)


NETWORKS: dict[str, type[NetworkSettings]] = {"unet": UNetSettings, "dit": DiTSettings, "mixed": MixedSettings}
"""Every kind of network, by the name that `network.kind` gives."""
