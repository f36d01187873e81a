"""OpenAI's networks by the layout of their state dicts: random weights, and the functions that they stand for."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from random_layer import put_layer
from torch import Tensor


def layout(
    base: int, multipliers: tuple[int, ...], blocks: int, attention: tuple[int, ...], channels: int = 3,
    outputs: int = 3, scale_shift: bool = True, updown: bool = False, classes: int = 0,
) -> dict[str, Tensor]:  # fmt: skip
    """Their state dict with random weights. attention: the levels that have it."""
    state: dict[str, Tensor] = {}

    put = partial(put_layer, state)

    def put_block(name: str, before: int, after: int) -> None:
        put(f"{name}.in_layers.0", before)
        put(f"{name}.in_layers.2", after, before, 3, 3)
        put(f"{name}.emb_layers.1", 2 * after if scale_shift else after, 4 * base)
        put(f"{name}.out_layers.0", after)
        put(f"{name}.out_layers.3", after, after, 3, 3)
        if before != after:
            put(f"{name}.skip_connection", after, before, 1, 1)

    def put_attention(name: str, width: int) -> None:
        put(f"{name}.norm", width)
        put(f"{name}.qkv", 3 * width, width, 1)
        put(f"{name}.proj_out", width, width, 1)

    put("time_embed.0", 4 * base, base)
    put("time_embed.2", 4 * base, 4 * base)
    put("input_blocks.0.0", base, channels, 3, 3)
    for name in ("input_blocks.0.0.weight", "input_blocks.0.0.bias"):
        state[name] = 0.01 * state[name]  # so that the eps of the first norm matters
    width, widths, number = base, [base], 1
    for level, multiplier in enumerate(multipliers):
        for _ in range(blocks):
            put_block(f"input_blocks.{number}.0", width, base * multiplier)
            width = base * multiplier
            if level in attention:
                put_attention(f"input_blocks.{number}.1", width)
            widths.append(width)
            number += 1
        if level < len(multipliers) - 1:
            if updown:
                put_block(f"input_blocks.{number}.0", width, width)
            else:
                put(f"input_blocks.{number}.0.op", width, width, 3, 3)
            widths.append(width)
            number += 1
    put_block("middle_block.0", width, width)
    put_attention("middle_block.1", width)
    put_block("middle_block.2", width, width)
    number = 0
    for level, multiplier in reversed(list(enumerate(multipliers))):
        for index in range(blocks + 1):
            put_block(f"output_blocks.{number}.0", width + widths.pop(), base * multiplier)
            width = base * multiplier
            if level in attention:
                put_attention(f"output_blocks.{number}.1", width)
            if level > 0 and index == blocks:
                name = f"output_blocks.{number}.{1 + (level in attention)}"
                put_block(name, width, width) if updown else put(f"{name}.conv", width, width, 3, 3)
            number += 1
    put("out.0", width)
    put("out.2", outputs, width, 3, 3)
    if classes:
        state["label_emb.weight"] = torch.randn(classes, 4 * base)
    return state


def classifier_layout(
    base: int, multipliers: tuple[int, ...], blocks: int, attention: tuple[int, ...], classes: int, pooled: int
) -> dict[str, Tensor]:
    """The state dict of their `EncoderUNetModel` that pools `pooled` x `pooled` positions by attention, with random weights."""
    whole = layout(base, multipliers, blocks, attention, updown=True)
    state = {name: tensor for name, tensor in whole.items() if not name.startswith(("output_blocks.", "out."))}
    width = base * multipliers[-1]
    put_layer(state, "out.0", width)
    state["out.2.positional_embedding"] = torch.randn(width, pooled**2 + 1)
    put_layer(state, "out.2.qkv_proj", 3 * width, width, 1)
    put_layer(state, "out.2.c_proj", classes, width, 1)
    return state


@dataclass(frozen=True)
class Theirs:
    """The parts of the functions that such state dicts stand for.

    halvings: input blocks that halve the side by a residual block. heads: how many at a number of channels. legacy: q, k and v lie
    head by head.
    """

    state: dict[str, Tensor]
    halvings: Sequence[int] = ()
    heads: Callable[[int], int] = lambda width: 4
    legacy: bool = True

    def at(self, name: str) -> tuple[Tensor, Tensor]:
        return self.state[f"{name}.weight"], self.state[f"{name}.bias"]

    def normal(self, name: str, h: Tensor) -> Tensor:
        return F.group_norm(h, 32, *self.at(name))

    def residual(self, name: str, h: Tensor, emb: Tensor, resize=lambda h: h) -> Tensor:
        around, h = resize(h), resize(F.silu(self.normal(f"{name}.in_layers.0", h)))
        h = F.conv2d(h, *self.at(f"{name}.in_layers.2"), padding=1)
        e = F.linear(F.silu(emb), *self.at(f"{name}.emb_layers.1"))[:, :, None, None]
        width = h.shape[1]
        if e.shape[1] == 2 * width:
            h = self.normal(f"{name}.out_layers.0", h) * (1 + e[:, :width]) + e[:, width:]
        else:
            h = self.normal(f"{name}.out_layers.0", h + e)
        h = F.conv2d(F.silu(h), *self.at(f"{name}.out_layers.3"), padding=1)
        if f"{name}.skip_connection.weight" in self.state:
            around = F.conv2d(around, *self.at(f"{name}.skip_connection"))
        return around + h

    def attend(self, name: str, h: Tensor) -> Tensor:
        batch, width, *sides = h.shape
        pixels = h.flatten(2)
        qkv = F.conv1d(self.normal(f"{name}.norm", pixels), *self.at(f"{name}.qkv"))
        results = self.heads_of(qkv, self.legacy)
        return (pixels + F.conv1d(results, *self.at(f"{name}.proj_out"))).view(batch, width, *sides)

    def heads_of(self, qkv: Tensor, legacy: bool) -> Tensor:
        """What all positions attend to: (B, 3 C, N) -> (B, C, N)."""
        width = qkv.shape[1] // 3
        each, results = width // self.heads(width), []
        for head in range(self.heads(width)):
            if legacy:
                q, k, v = qkv[:, 3 * each * head : 3 * each * (head + 1)].split(each, dim=1)
            else:
                q, k, v = (qkv[:, part * width + each * head :][:, :each] for part in range(3))
            weights = torch.softmax(q.transpose(1, 2) @ k / math.sqrt(each), dim=2)
            results.append(v @ weights.transpose(1, 2))
        return torch.cat(results, 1)

    def embedded(self, told: Tensor, labels: Tensor | None = None) -> Tensor:
        base = self.state["time_embed.0.weight"].shape[1]
        phase = told.float()[:, None] * torch.exp(-math.log(10_000) * torch.arange(base // 2) / (base // 2))
        emb = F.linear(torch.cat([phase.cos(), phase.sin()], 1), *self.at("time_embed.0"))
        emb = F.linear(F.silu(emb), *self.at("time_embed.2"))
        return emb if labels is None else emb + self.state["label_emb.weight"][labels]

    def down(self, x: Tensor, emb: Tensor) -> tuple[Tensor, list[Tensor]]:
        """What the middle makes, and what the way down keeps."""
        h = F.conv2d(x, *self.at("input_blocks.0.0"), padding=1)
        kept, number = [h], 1
        while any(name.startswith(f"input_blocks.{number}.") for name in self.state):
            name = f"input_blocks.{number}"
            if f"{name}.0.op.weight" in self.state:
                h = F.conv2d(h, *self.at(f"{name}.0.op"), stride=2, padding=1)
            else:
                halved = (lambda h: F.avg_pool2d(h, 2)) if number in self.halvings else (lambda h: h)
                h = self.residual(f"{name}.0", h, emb, halved)
            h = self.attend(f"{name}.1", h) if f"{name}.1.qkv.weight" in self.state else h
            kept.append(h)
            number += 1
        h = self.attend("middle_block.1", self.residual("middle_block.0", h, emb))
        return self.residual("middle_block.2", h, emb), kept


def forward(state: dict[str, Tensor], x: Tensor, told: Tensor, labels: Tensor | None = None, **parts) -> Tensor:
    """The function of their `UNetModel`. told: the time as the network sees it. parts: those of `Theirs`."""
    theirs = Theirs(state, **parts)
    emb = theirs.embedded(told, labels)
    h, kept = theirs.down(x, emb)

    def twice(h: Tensor) -> Tensor:
        return h.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)

    for number in range(len(kept)):
        h = theirs.residual(f"output_blocks.{number}.0", torch.cat([h, kept.pop()], dim=1), emb)
        for name in (f"output_blocks.{number}.1", f"output_blocks.{number}.2"):
            if f"{name}.qkv.weight" in state:
                h = theirs.attend(name, h)
            elif f"{name}.conv.weight" in state:
                h = F.conv2d(twice(h), *theirs.at(f"{name}.conv"), padding=1)
            elif f"{name}.in_layers.0.weight" in state:
                h = theirs.residual(name, h, emb, twice)
    return F.conv2d(F.silu(theirs.normal("out.0", h)), *theirs.at("out.2"), padding=1)


def classify(state: dict[str, Tensor], x: Tensor, told: Tensor, **parts) -> Tensor:
    """The function of their `EncoderUNetModel`: logits, from what the mean of all positions attends to."""
    theirs = Theirs(state, **parts)
    h, _ = theirs.down(x, theirs.embedded(told))
    tokens = F.silu(theirs.normal("out.0", h)).flatten(2)
    tokens = torch.cat([tokens.mean(2, keepdim=True), tokens], 2) + state["out.2.positional_embedding"]
    attended = theirs.heads_of(F.conv1d(tokens, *theirs.at("out.2.qkv_proj")), legacy=False)
    return F.conv1d(attended, *theirs.at("out.2.c_proj"))[:, :, 0]
