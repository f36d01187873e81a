"""DINOv2 and CLIP: the release's weights in timm's network, what is done to images first, and names that are refused.

Weights are random: the published ones cannot be shipped. Real sizes are built as outlines, which take no memory.
"""

import hashlib
import json
from dataclasses import replace

import numpy as np
import programs
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from tiny_models import tiny_checkpoint, tiny_data
from torch import nn
from torch.nn import functional
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as transforms

from ddpm_bench.errors import UserError
from ddpm_bench.metrics import vision
from ddpm_bench.metrics.extractors import load_extractor
from ddpm_bench.metrics.vision import CLIP, DINOV2, VISION, dinov2_positions, load_vision, network, resized
from ddpm_bench.networks.weights import mismatch, outline

WIDTH, HEADS, DEPTH = 8, 2, 2


def clip_weights(width: int, depth: int, patches: int, out: int, patch: int = 14) -> dict[str, torch.Tensor]:
    """Of the names and shapes of transformers' CLIPModel: the half that sees, and something of the one that reads."""

    def layer(a: int, b: int) -> dict[str, torch.Tensor]:
        return {"weight": torch.randn(b, a) / a**0.5, "bias": torch.randn(b) / 4}

    def norm() -> dict[str, torch.Tensor]:
        return {"weight": 1 + torch.randn(width) / 4, "bias": torch.randn(width) / 4}

    layers = {"pre_layrnorm": norm(), "post_layernorm": norm()}
    for number in range(depth):
        inside = {f"self_attn.{which}_proj": layer(width, width) for which in ("k", "v", "q", "out")}
        inside |= {"layer_norm1": norm(), "mlp.fc1": layer(width, 4 * width), "mlp.fc2": layer(4 * width, width)}
        layers |= {f"encoder.layers.{number}.{name}": each for name, each in (inside | {"layer_norm2": norm()}).items()}
    held = {f"vision_model.{name}.{kind}": each for name, of in layers.items() for kind, each in of.items()}
    return held | {
        "vision_model.embeddings.class_embedding": torch.randn(width),
        "vision_model.embeddings.patch_embedding.weight": torch.randn(width, 3, patch, patch) / patch,
        "vision_model.embeddings.position_embedding.weight": torch.randn(patches + 1, width),
        "vision_model.embeddings.position_ids": torch.arange(patches + 1)[None],
        "visual_projection.weight": torch.randn(out, width),
        "text_model.final_layer_norm.weight": torch.randn(5),
        "logit_scale": torch.tensor(4.6),
    }


def dinov2_weights(width: int, depth: int, patch: int = 14) -> dict[str, torch.Tensor]:
    """Of the names and shapes of DINOv2's release."""
    held = {
        "cls_token": torch.randn(1, 1, width), "pos_embed": torch.randn(1, 1 + 37 * 37, width), "mask_token": torch.zeros(1, width),
        "patch_embed.proj.weight": torch.randn(width, 3, patch, patch) / patch, "patch_embed.proj.bias": torch.randn(width),
        "norm.weight": 1 + torch.randn(width) / 4, "norm.bias": torch.randn(width) / 4,
    }  # fmt: skip
    shapes = {
        "attn.qkv": (3 * width, width),
        "attn.proj": (width, width),
        "mlp.fc1": (4 * width, width),
        "mlp.fc2": (width, 4 * width),
    }
    for number in range(depth):
        at = f"blocks.{number}"
        for name, (b, a) in shapes.items():
            held |= {f"{at}.{name}.weight": torch.randn(b, a) / a**0.5, f"{at}.{name}.bias": torch.randn(b) / 4}
        for name in ("norm1", "norm2"):
            held |= {f"{at}.{name}.weight": 1 + torch.randn(width) / 4, f"{at}.{name}.bias": torch.randn(width) / 4}
        held |= {f"{at}.{name}.gamma": torch.randn(width) for name in ("ls1", "ls2")}
    return held


@pytest.fixture
def small(monkeypatch):
    """The networks with few and narrow blocks, and an image side of two patches for CLIP."""
    programs.colour()
    import timm

    def build(of):
        how = {"embed_dim": WIDTH, "num_heads": HEADS, "depth": DEPTH, "num_classes": 5 if of.name == "clip" else 0}
        return timm.create_model(of.architecture, pretrained=False, img_size=of.side, **how)

    monkeypatch.setattr(vision, "network", build)
    monkeypatch.setitem(VISION, "clip", replace(CLIP, side=28, features=5))
    monkeypatch.setitem(VISION, "dinov2", replace(DINOV2, features=WIDTH))
    torch.manual_seed(0)
    return VISION


@pytest.fixture
def published(small, tmp_path, monkeypatch):
    """Files of both networks whose hashes are taken for the published ones; by name."""
    weights = {"dinov2": dinov2_weights(WIDTH, DEPTH), "clip": clip_weights(WIDTH, DEPTH, 4, 5)}
    paths = {name: tmp_path / f"{name}.pth" for name in weights}
    for name, path in paths.items():
        torch.save(weights[name], path)
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        monkeypatch.setitem(VISION, name, replace(VISION[name], sha256=sha256))
    return paths, weights


# ---- the networks ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("of", [DINOV2, CLIP], ids=["dinov2", "clip"])
def test_the_published_names_and_shapes_are_all_of_the_real_networks(of):
    programs.colour()
    with outline():
        state = dinov2_weights(1024, 24) if of is DINOV2 else clip_weights(1024, 24, 24 * 24, 768)
        body = network(of)
        converted = of.converted(state)
    assert mismatch(body, converted) is None
    assert of.features == (1024 if of is DINOV2 else 768)


def attention(x, qkv, bias, out, out_bias):
    q, k, v = (x @ qkv.T + bias).chunk(3, dim=-1)
    parts = []
    for head in range(HEADS):
        at = slice(head * WIDTH // HEADS, (head + 1) * WIDTH // HEADS)
        weights = (q[..., at] @ k[..., at].transpose(1, 2) / (WIDTH // HEADS) ** 0.5).softmax(-1)
        parts.append(weights @ v[..., at])
    return torch.cat(parts, -1) @ out.T + out_bias


def layer_norm(x, w, name, eps):
    return functional.layer_norm(x, (WIDTH,), w[f"{name}.weight"], w[f"{name}.bias"], eps)


def images(count: int, side: int = 32) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def prepared(x: torch.Tensor, of) -> torch.Tensor:
    """As dgm-eval does it: Resize of torchvision on PIL images, ToTensor, Normalize."""
    found = []
    for image in x:
        resized = transforms.resize(transforms.to_pil_image(image), [of.side] * 2, InterpolationMode.BICUBIC)
        found.append(transforms.normalize(transforms.to_tensor(resized), of.mean, of.deviation))
    return torch.stack(found)


def test_clip_gives_the_projected_class_token_that_its_weights_mean(published):
    paths, weights = published
    of, w = VISION["clip"], weights["clip"]
    body, _ = load_vision(of, paths["clip"], False)
    x = functional.conv2d(prepared(images(3), of), w["vision_model.embeddings.patch_embedding.weight"], stride=14)
    x = torch.cat([w["vision_model.embeddings.class_embedding"].expand(3, 1, -1), x.flatten(2).transpose(1, 2)], 1)
    x = layer_norm(x + w["vision_model.embeddings.position_embedding.weight"], w, "vision_model.pre_layrnorm", 1e-5)
    for number in range(DEPTH):
        at = f"vision_model.encoder.layers.{number}"
        qkv, bias = (torch.cat([w[f"{at}.self_attn.{p}_proj.{kind}"] for p in "qkv"]) for kind in ("weight", "bias"))
        h = layer_norm(x, w, f"{at}.layer_norm1", 1e-5)
        x = x + attention(h, qkv, bias, w[f"{at}.self_attn.out_proj.weight"], w[f"{at}.self_attn.out_proj.bias"])
        h = layer_norm(x, w, f"{at}.layer_norm2", 1e-5) @ w[f"{at}.mlp.fc1.weight"].T + w[f"{at}.mlp.fc1.bias"]
        x = x + (h * torch.sigmoid(1.702 * h)) @ w[f"{at}.mlp.fc2.weight"].T + w[f"{at}.mlp.fc2.bias"]
    expected = layer_norm(x[:, 0], w, "vision_model.post_layernorm", 1e-5) @ w["visual_projection.weight"].T
    features, logits = body(images(3))
    assert torch.allclose(features, expected, atol=1e-4) and logits.shape == (3, 0)


def test_dinov2_gives_the_class_token_that_its_weights_mean(published):
    paths, weights = published
    of, w = VISION["dinov2"], weights["dinov2"]
    body, _ = load_vision(of, paths["dinov2"], False)
    x = functional.conv2d(prepared(images(2), of), w["patch_embed.proj.weight"], w["patch_embed.proj.bias"], stride=14)
    x = torch.cat([w["cls_token"].expand(2, 1, -1), x.flatten(2).transpose(1, 2)], 1) + dinov2_positions(w["pos_embed"])
    for number in range(DEPTH):
        at = f"blocks.{number}"
        kinds = [w[f"{at}.attn.{name}"] for name in ("qkv.weight", "qkv.bias", "proj.weight", "proj.bias")]
        x = x + w[f"{at}.ls1.gamma"] * attention(layer_norm(x, w, f"{at}.norm1", 1e-6), *kinds)
        h = layer_norm(x, w, f"{at}.norm2", 1e-6) @ w[f"{at}.mlp.fc1.weight"].T + w[f"{at}.mlp.fc1.bias"]
        x = x + w[f"{at}.ls2.gamma"] * (functional.gelu(h) @ w[f"{at}.mlp.fc2.weight"].T + w[f"{at}.mlp.fc2.bias"])
    features, logits = body(images(2))
    assert torch.allclose(features, layer_norm(x, w, "norm", 1e-6)[:, 0], atol=1e-4) and logits.shape == (2, 0)


def test_dinov2s_positions_are_resampled_for_16_1_patches_a_side_without_antialias():
    def cubic(d):  # Keys 1981, a = -0.75
        d = abs(d)
        return 1.25 * d**3 - 2.25 * d**2 + 1 if d <= 1 else -0.75 * (d**3 - 5 * d**2 + 8 * d - 4) if d < 2 else 0

    weights = np.zeros((16, 37))
    for i in range(16):
        at = (i + 0.5) * 37 / 16.1 - 0.5
        for j in range(int(np.floor(at)) - 1, int(np.floor(at)) + 3):
            weights[i, min(max(j, 0), 36)] += cubic(at - j)
    positions = torch.randn(1, 1 + 37 * 37, 3, generator=torch.Generator().manual_seed(0))
    grid = positions[0, 1:].view(37, 37, 3).double().numpy()
    expected = np.einsum("ij,kl,jlc->ikc", weights, weights, grid).reshape(256, 3)
    found = dinov2_positions(positions)[0]
    assert torch.equal(found[0], positions[0, 0]) and found[1:].numpy() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("height, width", [(28, 28), (8, 20), (50, 90)])
def test_images_are_resized_by_pillow_as_whole_images(height, width):
    pixels = images(2, 90)[:, :, :height, :width]
    expected = [
        np.asarray(Image.fromarray(each.permute(1, 2, 0).numpy()).resize((28, 28), Image.Resampling.BICUBIC))
        for each in pixels
    ]
    assert np.array_equal(resized(pixels, 28).permute(0, 2, 3, 1).numpy(), np.stack(expected))


# ---- names ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, distance", [("dinov2", "FD-DINOv2"), ("clip", "FD (clip)")])
def test_the_published_file_gives_the_published_name_and_another_is_refused_or_marked(
    published, tmp_path, name, distance
):
    paths, weights = published
    found = load_extractor(f"{name}:{paths[name]}", cache=tmp_path)
    assert found.info.labels[0] == distance and found.info.verified and found.info.classes == 0
    assert "Pillow" in found.info.input and "timm" in found.packages
    other = tmp_path / "other.safetensors"
    save_file({key: value.contiguous() for key, value in weights[name].items()}, other)
    with pytest.raises(UserError, match=r"is not the published .*Nothing of it was loaded.*--allow-unverified-weights"):
        load_extractor(f"{name}:{other}", cache=tmp_path)
    found = load_extractor(f"{name}:{other}", allow_unverified=True, cache=tmp_path)
    assert found.info.labels[0] == f"FD ({name}, unverified)" and not found.info.verified


def test_files_of_other_networks_damage_and_code_are_refused(small, tmp_path):
    path = tmp_path / "w.pth"
    for content, told in (
        ({"weight": torch.zeros(3)}, "another network"),
        (clip_weights(WIDTH, DEPTH, 4, 5), "another network"),
        (dinov2_weights(WIDTH, 1), "another network"),
        ([torch.zeros(3)], "no tensors by name"),
        (nn.Linear(2, 2), "damaged or holds something other than tensors"),
    ):
        torch.save(content, path)
        with pytest.raises(UserError, match=told):
            load_extractor(f"dinov2:{path}", allow_unverified=True, cache=tmp_path)
    path.write_bytes(b"\x80\x02")
    with pytest.raises(UserError, match="damaged"):
        load_extractor(f"clip:{path}", allow_unverified=True, cache=tmp_path)
    with pytest.raises(UserError, match="Cannot read the weights of clip"):
        load_extractor(f"clip:{tmp_path / 'none'}", cache=tmp_path)


def test_evaluate_measures_images_and_checkpoints_without_a_score(call, published, tmp_path):
    paths, _ = published
    data = tiny_data(tmp_path / "data.npz")
    np.savez(tmp_path / "samples.npz", samples=np.load(tmp_path / "data.npz")["train"][:20, 0])
    asked = ("evaluate", "--data", data, "--extractor", f"clip:{paths['clip']}", "--cache", tmp_path / "cache")
    answer = call(*asked, "--samples", tmp_path / "samples.npz", "--json")
    assert answer.code == 0, answer.err
    found = json.loads(answer.out)["metrics"]
    assert "mmd_train" in found and "fd_train" in found and "is_mean" not in found
    shown = call(*asked, "--samples", tmp_path / "samples.npz").out
    assert "CMMD" in shown and "no score" not in shown and "Not comparable" not in shown
    row = (
        "--ckpt", tiny_checkpoint(tmp_path / "eps"), "--results", tmp_path / "rows", "--count", 16, "--bound-images", 0,
        "--device", "cpu",
    )  # fmt: skip
    answer = call(*asked, *row)
    assert answer.code == 0, answer.err
    table = (tmp_path / "rows" / "table.md").read_text()
    assert "CMMD ↓" in table and "no score" not in table
