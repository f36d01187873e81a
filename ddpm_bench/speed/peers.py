"""The contenders: our network, and those of other packages where they are installed.

Each gives its own network, as (x_t, 0-based step) -> predicted noise, and its own step of Algorithm 2. Where a package
has no counterpart (the loop of training, a term of the bound) `work.py` uses a plain loop, or our own code.
"""

import importlib.util
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

from ddpm_bench.config.networks import DiTSettings, NetworkSettings, UNetSettings
from ddpm_bench.models.build import build_network
from ddpm_bench.speed.case import Case

SamplingStep = Callable[[Tensor, int], Tensor]
"""step(x_t, t) -> x_{t-1}, with t counted from 0."""


class Peer(Protocol):
    """`package` is what must be importable; `equal_work`: whether the network computes the same function as ours; `kinds`: of
    networks that it has."""

    name: str
    package: str
    equal_work: bool
    kinds: tuple[type[NetworkSettings], ...]

    def network(self, case: Case) -> nn.Module:
        """With the preset's sizes and dropout, on the CPU."""

    def sampling_step(self, network: nn.Module, case: Case) -> SamplingStep:
        """The package's own, noise included; `network` is on the device and in evaluation mode."""


class Ours:
    name, package, equal_work = "ddpm-bench", "ddpm_bench", True
    kinds: tuple[type[NetworkSettings], ...] = (NetworkSettings,)

    def network(self, case: Case) -> nn.Module:
        return build_network(case.settings.network, case.shape, case.diffusion)


class Diffusers:
    """UNet2DModel with the choices of google/ddpm-cifar10-32, or DiTTransformer2DModel, at the preset's sizes; DDPMScheduler."""

    name, package, equal_work = "diffusers", "diffusers", True
    kinds: tuple[type[NetworkSettings], ...] = (UNetSettings, DiTSettings)

    def network(self, case: Case) -> nn.Module:
        ours = case.settings.network
        return (
            self._transformer(ours, case.shape) if isinstance(ours, DiTSettings) else self._unet(case.unet, case.shape)
        )

    def _transformer(self, ours: DiTSettings, shape: tuple[int, int, int]) -> nn.Module:
        """It has to be told a class, here always the same, and every block embeds step and class for itself."""
        from diffusers import DiTTransformer2DModel

        channels, size, _ = shape
        return _OneClass(DiTTransformer2DModel(
            num_attention_heads=ours.heads, attention_head_dim=ours.width // ours.heads, in_channels=channels,
            out_channels=channels, num_layers=ours.depth, sample_size=size, patch_size=ours.patch, num_embeds_ada_norm=1,
            norm_eps=1e-6,
        ))  # fmt: skip

    def _unet(self, ours: UNetSettings, shape: tuple[int, int, int]) -> nn.Module:
        from diffusers import UNet2DModel

        channels, size, _ = shape
        attention = [size >> level in ours.attention for level in range(len(ours.multipliers))]
        return _Sample(UNet2DModel(
            sample_size=size, in_channels=channels, out_channels=channels, layers_per_block=ours.blocks,
            block_out_channels=tuple(ours.base * multiplier for multiplier in ours.multipliers),
            down_block_types=tuple("AttnDownBlock2D" if a else "DownBlock2D" for a in attention),
            up_block_types=tuple("AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attention)),
            attention_head_dim=None, norm_num_groups=ours.groups, attn_norm_num_groups=ours.groups, norm_eps=ours.eps,
            downsample_padding=0, freq_shift=1, flip_sin_to_cos=False, dropout=ours.dropout,
        ))  # fmt: skip

    def sampling_step(self, network: nn.Module, case: Case) -> SamplingStep:
        from diffusers import DDPMScheduler

        schedule = case.diffusion.schedule
        scheduler = DDPMScheduler(
            schedule.T, trained_betas=schedule.betas.tolist(), variance_type="fixed_large", clip_sample=True
        )

        @torch.inference_mode()
        def step(x_t: Tensor, t: int) -> Tensor:
            steps = torch.full((len(x_t),), t, device=x_t.device)
            return scheduler.step(network(x_t, steps), t, x_t).prev_sample

        return step


class DenoisingDiffusion:
    """Its Unet at the preset's widths: other norms, linear attention, two blocks a level; so other work than ours."""

    name, package, equal_work = "denoising-diffusion-pytorch", "denoising_diffusion_pytorch", False
    kinds: tuple[type[NetworkSettings], ...] = (UNetSettings,)

    def network(self, case: Case) -> nn.Module:
        from denoising_diffusion_pytorch import Unet

        ours, (channels, size, _) = case.unet, case.shape
        return Unet(
            ours.base, dim_mults=ours.multipliers, channels=channels, dropout=ours.dropout, flash_attn=False,
            full_attn=tuple(size >> level in ours.attention for level in range(len(ours.multipliers))),
        )  # fmt: skip

    def sampling_step(self, network: nn.Module, case: Case) -> SamplingStep:
        from denoising_diffusion_pytorch import GaussianDiffusion

        # Its linear schedule has betas above 1 in short chains; which schedule it is makes no difference to the time.
        T, size = case.diffusion.schedule.T, case.shape[1]
        chain = GaussianDiffusion(
            network, image_size=size, timesteps=T, objective="pred_noise", beta_schedule="cosine"
        ).to(case.device)  # fmt: skip
        return lambda x_t, t: chain.p_sample(x_t, t)[0]


class _Sample(nn.Module):
    """diffusers' networks return an object around the tensor."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x_t: Tensor, step: Tensor) -> Tensor:
        return self.network(x_t, step, return_dict=False)[0]


class _OneClass(_Sample):
    """Every image is of class 0."""

    def forward(self, x_t: Tensor, step: Tensor) -> Tensor:
        return self.network(x_t, step, torch.zeros_like(step, dtype=torch.int64), return_dict=False)[0]


OURS = Ours()
PEERS: tuple[Peer, ...] = (Diffusers(), DenoisingDiffusion())


def installed(peer: Peer) -> bool:
    """Is the package there? It is not imported."""
    return importlib.util.find_spec(peer.package) is not None
