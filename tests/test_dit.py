"""The transformer against diffusers' with copied weights and the release's formulas, its sizes, and its initial values."""

import numpy as np
import pytest
import torch
from diffusers import DiTTransformer2DModel
from diffusers.models.embeddings import Timesteps
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ddpm_bench.config.networks import DIT_SIZES, DiTSettings
from ddpm_bench.config.preset import load_preset, resolve
from ddpm_bench.config.settings import ProcessSettings, TrainingSettings
from ddpm_bench.config.shipped import load_grid
from ddpm_bench.diffusion.denoiser import Denoiser
from ddpm_bench.diffusion.objective import OBJECTIVES
from ddpm_bench.errors import UserError
from ddpm_bench.models.build import build_diffusion, build_network
from ddpm_bench.networks.condition import Condition
from ddpm_bench.networks.dit import FEATURES, DiT, patchify, positions, unpatchify
from ddpm_bench.networks.weights import outline
from ddpm_bench.training.trainer import Trainer, Training

SMALL = DiTSettings(depth=3, width=24, heads=3, patch=2, classes=5, null_class=True)
UNTOLD = SMALL.model_copy(update={"classes": 0, "null_class": False})
PUBLISHED = {
    "S/2": 32_865_056, "S/4": 32_920_448, "S/8": 33_142_016, "B/2": 130_315_808, "B/4": 130_426_496, "B/8": 130_869_248,
    "L/2": 457_840_672, "L/4": 457_988_224, "L/8": 458_578_432, "XL/2": 674_834_720, "XL/4": 675_000_704, "XL/8": 675_664_640,
}  # fmt: skip
"""Parameters that the release trains, of latents of 4 channels and 1000 classes."""


def sized(name: str) -> DiTSettings:
    size, patch = name.split("/")
    depth, width, heads = DIT_SIZES[size]
    return DiTSettings(depth=depth, width=width, heads=heads, patch=int(patch), classes=1000, null_class=True)


def reference(settings: DiTSettings, channels: int, out_channels: int, side: int) -> DiTTransformer2DModel:
    """diffusers' transformer, with the release's frequencies of the step: its own divide by half - 1 instead of half."""
    network = DiTTransformer2DModel(
        num_attention_heads=settings.heads, attention_head_dim=settings.width // settings.heads, in_channels=channels,
        out_channels=out_channels, num_layers=settings.depth, sample_size=side, patch_size=settings.patch,
        num_embeds_ada_norm=settings.classes, norm_eps=1e-6,
    )  # fmt: skip
    for block in network.transformer_blocks:
        block.norm1.emb.time_proj = Timesteps(FEATURES, flip_sin_to_cos=True, downscale_freq_shift=0)
    return network


@torch.no_grad()
def copy_weights(ours: DiT, theirs: DiTTransformer2DModel) -> None:
    """Give `theirs` the weights of `ours`; every one of them. Its blocks have an embedding of step and class each."""
    filled: set[int] = set()

    def fill(target: nn.Module, *sources: nn.Module) -> None:
        for kind in ("weight", "bias"):
            parameter = getattr(target, kind, None)
            if parameter is not None:
                parameter.copy_(torch.cat([getattr(each, kind) for each in sources]).reshape(parameter.shape))
                filled.add(id(parameter))

    patch = ours.first.weight.unflatten(1, (ours.patch, ours.patch, -1)).permute(0, 3, 1, 2)
    theirs.pos_embed.proj.weight.copy_(patch)
    theirs.pos_embed.proj.bias.copy_(ours.first.bias)
    filled |= {id(parameter) for parameter in theirs.pos_embed.proj.parameters()}
    for source, target in zip(ours.blocks, theirs.transformer_blocks, strict=True):
        told = target.norm1.emb
        fill(told.timestep_embedder.linear_1, ours.conditioning.hidden)
        fill(told.timestep_embedder.linear_2, ours.conditioning.out)
        fill(told.class_embedder.embedding_table, ours.conditioning.labels)
        fill(target.norm1.linear, source.modulation)
        for part, name in enumerate(("to_q", "to_k", "to_v")):
            to = getattr(target.attn1, name)
            to.weight.copy_(source.qkv.weight.chunk(3)[part])
            to.bias.copy_(source.qkv.bias.chunk(3)[part])
            filled |= {id(to.weight), id(to.bias)}
        fill(target.attn1.to_out[0], source.out)
        fill(target.ff.net[0].proj, source.hidden)
        fill(target.ff.net[2], source.back)
    fill(theirs.proj_out_1, ours.modulation)
    fill(theirs.proj_out_2, ours.last)
    assert filled == {id(parameter) for parameter in theirs.parameters()}


@torch.no_grad()
def shaken(network: nn.Module) -> nn.Module:
    """Move every weight off its zero, which would hide a mistake."""
    for parameter in network.parameters():
        parameter.add_(0.2 * torch.randn_like(parameter))
    return network


def inputs(channels: int = 4, side: int = 8, batch: int = 3) -> tuple[Tensor, Tensor, Condition]:
    torch.manual_seed(1)
    return torch.randn(batch, channels, side, side), torch.tensor([0, 500, 999]), Condition(torch.tensor([0, 4, 5]))


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_papers_sizes_have_the_releases_numbers_of_parameters(name) -> None:
    with outline():
        network = DiT(4, 8, 32, sized(name))
    assert sum(p.numel() for p in network.parameters()) == PUBLISHED[name]
    tokens = (32 // network.patch) ** 2
    assert [b.shape for b in network.buffers() if b.ndim == 2] == [(tokens, sized(name).width)]


def test_the_papers_sizes_take_the_papers_multiply_adds() -> None:
    """A layer multiplies once a weight and token, but those of the step once an image; attention twice a pair and feature."""
    for cell in load_grid("dit-imagenet").cells:
        if cost := cell.published.cost:
            name = cell.label.removeprefix("DiT-")
            settings = DiTSettings(**cell.settings["network"], classes=1000, null_class=True)
            with outline():
                network = DiT(4, 8, 32, settings)
            count, tokens = 0, (32 // settings.patch) ** 2
            for layer, module in network.named_modules():
                if isinstance(module, nn.Linear):
                    count += module.weight.numel() * (1 if "conditioning" in layer or "modulation" in layer else tokens)
            count += settings.depth * 2 * tokens**2 * settings.width
            assert count / 1e9 == pytest.approx(cost.gflops, rel=2e-3, abs=0.005)
            assert settings == sized(name) and cost.parameters == PUBLISHED[name]


def test_in_small_the_largest_takes_as_many_multiply_adds_as_the_u_net_beside_it() -> None:
    grid, counts = load_grid("dit-imagenet"), {}
    for cell in grid.select(["unet", "xl-2"]):
        settings = resolve(cell, load_preset("quick"), {})
        network = build_network(settings.network, (1, 16, 16), build_diffusion(settings.diffusion))
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(torch.zeros(1, 1, 16, 16), torch.zeros(1))
        counts[cell.name] = counter.get_total_flops() / 2e6
    assert counts == {"unet": pytest.approx(34.7, abs=0.05), "xl-2": pytest.approx(34.4, abs=0.05)}


def test_the_preset_is_the_papers_experiment() -> None:
    [cell] = load_grid("dit-imagenet").select(["xl-2"])
    settings = resolve(cell, load_preset("dit-imagenet"), {})
    assert settings.network == sized("XL/2")
    training = settings.training
    assert (training.steps, training.batch, training.learning_rate, training.warmup) == (400_000, 256, 1e-4, 0)
    assert (training.ema_decay, training.flips, settings.diffusion.T) == (0.9999, True, 1000)


def test_the_defaults_are_the_largest_without_labels() -> None:
    assert DiTSettings(classes=1000, null_class=True) == sized("XL/2")


@pytest.mark.parametrize(("channels", "out_channels", "patch", "side"), [(4, 8, 2, 8), (1, 1, 4, 16), (3, 3, 8, 16)])
def test_any_size_equals_diffusers_in_outputs_and_gradients(channels, out_channels, patch, side) -> None:
    torch.manual_seed(0)
    settings = SMALL.model_copy(update={"patch": patch})
    ours = shaken(DiT(channels, out_channels, side, settings)).eval()
    theirs = reference(settings, channels, out_channels, side).eval()
    copy_weights(ours, theirs)
    x_t, step, condition = inputs(channels, side)
    found, expected = ours(x_t, step, condition), theirs(x_t, step, condition.labels).sample
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    weight = torch.randn_like(found)
    for output in (found, expected):
        (output * weight).sum().backward()
    gradient = ours.first.weight.grad.unflatten(1, (patch, patch, -1)).permute(0, 3, 1, 2)
    scale = gradient.abs().max().item()
    torch.testing.assert_close(gradient / scale, theirs.pos_embed.proj.weight.grad / scale, rtol=0, atol=1e-5)


def test_a_new_network_predicts_zero_and_its_blocks_change_nothing() -> None:
    network = DiT(4, 8, 8, SMALL)
    assert not network(*inputs()).any()
    tokens = torch.randn(2, 16, 24)
    assert all(torch.equal(block(tokens, torch.randn(2, 24)), tokens) for block in network.blocks)


def test_initial_weights_are_the_releases() -> None:
    torch.manual_seed(0)
    network = DiT(4, 8, 8, DiTSettings(depth=1, width=256, heads=4, patch=4, classes=400))
    block, told = network.blocks[0], network.conditioning
    uniform = {block.qkv: (256, 768), block.out: (256, 256), block.hidden: (256, 1024), network.first: (64, 256)}
    for layer, (before, after) in uniform.items():
        bound = (6 / (before + after)) ** 0.5
        assert layer.weight.abs().max().item() == pytest.approx(bound, rel=0.01)
        assert layer.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)
    for layer in (told.hidden, told.out, told.labels):
        assert layer.weight.std().item() == pytest.approx(0.02, rel=0.02)
    zero = [p for name, p in network.named_parameters() if name.endswith("bias") and not name.startswith("first")]
    assert not any(p.any() for p in zero)


def test_patches_go_row_after_row_and_an_image_comes_back_from_them() -> None:
    x = torch.arange(2 * 3 * 8 * 8).view(2, 3, 8, 8)
    tokens = patchify(x, 4)
    assert tokens.shape == (2, 4, 48) and torch.equal(unpatchify(tokens, 4), x)
    assert torch.equal(tokens[0, 1].view(4, 4, 3), x[0, :, :4, 4:].permute(1, 2, 0))


def test_without_positions_the_order_of_tokens_makes_no_difference() -> None:
    torch.manual_seed(0)
    network = shaken(DiT(4, 8, 8, SMALL)).double().eval()
    x_t, step, condition = inputs()
    order = torch.randperm(16)

    def permuted(x: Tensor) -> Tensor:
        return unpatchify(patchify(x, 2)[:, order], 2)

    x_t = x_t.double()
    assert not torch.allclose(network(permuted(x_t), step, condition), permuted(network(x_t, step, condition)))
    network.positions.zero_()
    torch.testing.assert_close(network(permuted(x_t), step, condition), permuted(network(x_t, step, condition)))


def test_positions_are_the_releases_formula_the_column_first() -> None:
    side, width = 5, 24
    omega = 1.0 / 10000 ** (np.arange(width // 4, dtype=np.float64) / (width / 4.0))
    expected = np.empty((side, side, width))
    for row in range(side):
        for column in range(side):
            parts = [function(p * omega) for p in (column, row) for function in (np.sin, np.cos)]
            expected[row, column] = np.concatenate(parts)
    np.testing.assert_array_equal(positions(side, width).numpy(), expected.reshape(-1, width).astype(np.float32))


def test_the_step_is_told_by_cosines_then_sines_with_frequencies_over_half() -> None:
    told = DiT(4, 8, 8, UNTOLD.model_copy(update={"width": 256, "heads": 1})).conditioning
    with torch.no_grad():
        for layer, bias in ((told.hidden, 100), (told.out, 0)):
            layer.weight.copy_(torch.eye(256))
            layer.bias.fill_(bias)  # SiLU is the identity there
    step = np.array([0, 7, 999, 12.5])
    found = told(torch.tensor(step), None).detach().numpy()
    phase = step[:, None] * np.exp(-np.log(10000) * np.arange(128) / 128)
    features = 100 + np.concatenate([np.cos(phase), np.sin(phase)], axis=1)
    np.testing.assert_allclose(found, features, rtol=0, atol=2e-4)


def test_a_network_is_told_classes_where_it_has_some_and_only_there() -> None:
    torch.manual_seed(0)
    network, (x_t, step, condition) = shaken(DiT(4, 8, 8, SMALL)), inputs()
    told, others = network(x_t, step, condition), network(x_t, step, Condition(torch.tensor([0, 4, 2])))
    assert torch.equal(told[:2], others[:2]) and not torch.allclose(told[2], others[2])  # 5 is no class
    for settings, given in ((SMALL, None), (UNTOLD, condition)):
        with pytest.raises(TypeError, match="is called as if it were another"):
            DiT(4, 8, 8, settings)(x_t, step, given)


def test_blocks_compute_in_bfloat16_where_asked_and_the_last_layer_and_prediction_in_float32() -> None:
    torch.manual_seed(0)
    network, dtypes = shaken(DiT(4, 8, 8, SMALL)), {}
    for name in ("blocks.1.qkv", "modulation", "last"):
        network.get_submodule(name).register_forward_hook(
            lambda _, __, made, name=name: dtypes.update({name: made.dtype})
        )
    exact = network(*inputs())
    network.in_bfloat16 = True
    rounded = network(*inputs())
    assert dtypes == {"blocks.1.qkv": torch.bfloat16, "modulation": torch.float32, "last": torch.float32}
    assert rounded.dtype == torch.float32 and 0 < (rounded - exact).abs().max() < 0.1 * exact.abs().max()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"patch": 3}, "side 8 cannot be cut into patches of 3"),
        ({"heads": 5}, "width 24 .* among 5 heads"),
        ({"width": 30, "heads": 3}, "width = 30 is no multiple of 4.*Take 32"),
    ],
)
def test_sizes_that_do_not_fit_together_are_refused_with_the_remedy(changed, said) -> None:
    with pytest.raises(UserError, match=said):
        DiT(4, 8, 8, SMALL.model_copy(update=changed))


def test_it_trains_with_a_learned_range_and_the_unscaled_hybrid_objective(tmp_path) -> None:
    process = ProcessSettings(parameterization="eps", variance="learned-range", T=6, beta_1=0.05, beta_T=0.7)
    diffusion = build_diffusion(process)
    network = build_network(UNTOLD, (1, 8, 8), diffusion)
    settings = TrainingSettings(steps=2, batch=4, warmup=0, learning_rate=1e-3)
    images = torch.randint(0, 256, (8, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    denoiser = Denoiser(diffusion, network, (1, 8, 8), clip_x0=False)
    trainer = Trainer(Training(denoiser, OBJECTIVES["L_hybrid-unscaled"], images, settings, 0, {}), tmp_path)
    trainer.train_step()
    assert network.last.weight.any() and not network.blocks[0].modulation.weight.any()  # the last layer has to begin
    trainer.train_step()
    assert network.blocks[0].modulation.weight.any()
    mean, variance = network.last.weight.detach().view(2, 2, 2, -1).unbind(2)
    assert mean.any() and variance.any()
