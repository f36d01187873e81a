"""Bytes gone wrong, and files of binary kinds: safetensors, PNG, npz, and torch's."""

import io
import json
import struct
import zipfile
import zlib
from random import Random
from typing import Any

import numpy as np
import torch
from fuzz_text import DEEP, HUGE, VALUES, changed_value, nested


def changed_bytes(random: Random, content: bytes) -> bytes:
    """Flipped, cut off, repeated, removed, overwritten with a large number, or replaced altogether."""
    if not content:
        return b"\0"
    start = random.randrange(len(content))
    end = min(len(content), start + random.choice((1, 2, 4, 8, 64, 4096)))
    what = random.randrange(8)
    if what == 0:
        return content[:start] + bytes([content[start] ^ (1 << random.randrange(8))]) + content[start + 1 :]
    if what == 1:
        return content[:start]
    if what == 2:
        return content[:end] + content[start:]
    if what == 3:
        return content[:start] + content[end:]
    if what == 4:
        number = random.choice((0, 0x7F, 2**31 - 1, 2**32 - 1, 2**63 - 1, 2**64 - 1)).to_bytes(8, "little")
        return content[:start] + number[: random.choice((1, 2, 4, 8))] + content[end:]
    if what == 5:
        return content[:start] + bytes(random.randrange(256) for _ in range(4)) + content[start + 4 :]
    if what == 6:
        return random.choice((b"", b"\0" * 64, b"\xff" * 64, b"[" * DEEP, b"PK\5\6" + b"\0" * 18, b"\x80\x02}."))
    return content + content[: random.choice((1, 64, 4096))]


def changed_safetensors(random: Random, content: bytes) -> bytes:
    """Another header before the same data, its length right or not."""
    length = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    what = random.randrange(10)
    name = random.choice(sorted(header))
    if what == 0:
        header[name] = header[random.choice(sorted(header))]
    elif what == 1:
        header[name + "x"] = header.pop(name)
    elif what == 2:
        header[name]["dtype"] = random.choice(
            ("F64", "F16", "BF16", "I32", "I64", "U8", "BOOL", "F8_E4M3", "F4", "C64", "I8")
        )
    elif what == 3:
        header[name]["shape"] = random.choice(
            ([], [0, 2**62], [2**62, 4], header[name]["shape"][::-1], [1, *header[name]["shape"]])
        )
    elif what == 4:
        at = header[name]["data_offsets"]
        data = (
            data[: at[0]]
            + random.choice((b"\0\0\xc0\x7f", b"\0\0\x80\x7f", b"\xff" * 4)) * ((at[1] - at[0]) // 4)
            + data[at[1] :]
        )
    else:
        header = changed_value(random, header)
    text = nested(random) if what == 9 else json.dumps(header).encode()
    said = random.choice((len(text),) * 6 + (len(text) - 1, 2**40, 2**63))
    return said.to_bytes(8, "little") + text + data


def changed_png(random: Random, content: bytes) -> bytes:
    """Another chunk with its checksum right: a header of absurd sizes, parts of the data, another order."""
    chunks, at = [], 8
    while at < len(content):
        (length,) = struct.unpack(">I", content[at : at + 4])
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + length]))
        at += 12 + length
    number = random.randrange(len(chunks))
    kind, data = chunks[number]
    what = random.randrange(5)
    if what <= 1:
        side = random.choice((0, 1, 2**8, 2**12, 2**14, 2**16, 2**31 - 1, 2**32 - 1))
        other = random.choice((side, 1, 8, 16))
        depth, colour = random.choice(((8, 0), (8, 2), (16, 0), (16, 2), (1, 0), (8, 3), (8, 6), (9, 9)))
        chunks[0] = (
            b"IHDR",
            struct.pack(">IIBBBBB", side, other, depth, colour, *random.choice(((0, 0, 0), (0, 0, 1), (9, 9, 9)))),
        )
    elif what == 2:
        rows = zlib.compress(bytes(random.choice((10, 2**20, 2**24))))
        chunks = [chunks[0], (random.choice((b"IDAT", b"zTXt", b"iCCP", b"eXIf", b"acTL")), rows), *chunks[1:]]
    elif what == 3:
        chunks[number] = (
            random.choice((b"tRNS", b"PLTE", b"gAMA", b"fcTL", b"fdAT", b"iTXt", kind)),
            changed_bytes(random, data),
        )
    else:
        random.shuffle(chunks)
    return content[:8] + b"".join(
        struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks
    )


def changed_npz(random: Random, content: bytes) -> bytes:
    """Another archive: a member's header, its array, its packing, or the members' names."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = random.choice(sorted(members))
    what = random.randrange(7)
    if what == 0:
        members[random.choice(sorted(members))] = members.pop(name)
    elif what == 1:
        members[name] = changed_bytes(random, members[name])
    elif what <= 3:
        members[name] = npy_header(random, members[name])
    else:
        members[name] = npy(random)
    packing = random.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", packing) as archive:
        for name, each in members.items():
            archive.writestr(name, each)
    return buffer.getvalue()


def npy_header(random: Random, member: bytes) -> bytes:
    """An array's bytes under another header."""
    (length,) = struct.unpack("<H", member[8:10])
    old = member[10 : 10 + length].decode()
    number = random.choice(HUGE)
    shape = random.choice(
        (f"({number},)", f"({number}, {number})", "()", f"(0, {number})", "(1, 8, 8)", "None", "3", "(1.5,)")
    )
    descr = random.choice(
        (
            "'|u1'",
            "'>u2'",
            "'|O'",
            "'|V0'",
            "'<U0'",
            "'|S0'",
            "'<U9'",
            "'<f8'",
            "'>i8'",
            "'<M8[ns]'",
            "[('a', '|u1')]",
            "3",
        )
    )
    order = random.choice(("True", "False", "3"))
    header = random.choice((
        f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}",
        f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}",
        f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': (1, 8, 8), }}",
        old.replace("False", "True"), "[" * 9000, "(" * 90 + ")" * 90, changed_bytes(random, old.encode()).decode("latin-1"),
    )).encode("latin-1")  # fmt: skip
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header) & 0xFFFF) + header + member[10 + length :]


def npy(random: Random) -> bytes:
    """Some other array, as numpy.save writes it; objects are pickles."""
    array = random.choice((
        np.array("a name"), np.array(3), np.array(["a", "b"]), np.array([b"a", b"b"]), np.array([{"a": 1}], object),
        np.arange(4), np.arange(4).astype(">i8"), np.array([-1, 0]), np.array([2**63], np.uint64), np.array([True, False]),
        np.asfortranarray(np.arange(128, dtype=np.uint8).reshape(2, 8, 8)), np.zeros((0, 8, 8), np.uint8),
        np.zeros((2, 8, 8, 3), np.uint8), np.zeros((2, 3, 8, 8), np.uint8), np.full((2, 8, 8), 0.5),
        np.zeros(2**20, np.uint8), np.zeros((2**24, 1, 1), np.uint8), np.array([], np.uint8),
    ))  # fmt: skip
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def changed_pt(random: Random, content: bytes) -> bytes:
    """Another pickle in torch's archive: other objects by name, or other bytes in a member."""
    buffer = io.BytesIO()
    if random.randrange(3):
        torch.save(changed_objects(random, torch.load(io.BytesIO(content), weights_only=True)), buffer)
        return buffer.getvalue()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    pickled = next(name for name in members if name.endswith("data.pkl"))
    name = random.choice((pickled, pickled, pickled, *sorted(members)))
    members[name] = changed_bytes(random, members[name])
    with zipfile.ZipFile(buffer, "w", random.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
        for name, each in members.items():
            archive.writestr(name, each)
    return buffer.getvalue()


def changed_objects(random: Random, value: Any) -> Any:
    """A dictionary of tensors and plain values, with one of them replaced, renamed or removed."""
    if isinstance(value, dict) and value and random.randrange(20):
        key = random.choice(sorted(value, key=str))
        what = random.randrange(8)
        if what == 0:
            return {k: v for k, v in value.items() if k != key}
        if what == 1:
            other = random.choice(
                (3, None, ("a",), f"{key}x", str(key).rpartition(".")[0], f"{key}.1.conv.weight", "label_emb.weight")
            )
            return {(other if k == key else k): v for k, v in value.items()}
        return value | {key: changed_objects(random, value[key])}
    if isinstance(value, torch.Tensor) and value.numel() < 2**22 and random.randrange(3):  # not one that was expanded
        return changed_tensor(random, value)
    return random.choice([each for each in VALUES if each != "\ud800"])


def changed_tensor(random: Random, tensor: torch.Tensor) -> torch.Tensor:
    one = torch.zeros(1)
    return random.choice((
        lambda: tensor.half(), lambda: tensor.to(torch.bfloat16), lambda: tensor.long(), lambda: tensor.to(torch.complex64),
        lambda: tensor > 0, lambda: torch.quantize_per_tensor(tensor.float(), 0.1, 0, torch.qint8), lambda: tensor.to_sparse(),
        lambda: tensor.to("meta"), lambda: torch.nn.Parameter(tensor), lambda: torch.full_like(tensor, float("nan")),
        lambda: tensor[None], lambda: tensor.flatten(), lambda: tensor[:1].clone(), lambda: tensor[:0].clone(),
        lambda: torch.tensor(1.0), lambda: torch.cat([tensor, tensor]), lambda: tensor.mT if tensor.ndim > 1 else tensor,
        lambda: torch.zeros(2**20, 1, 1, 1), lambda: one.expand(2**20, 2**20), lambda: one.expand(2**40),
        lambda: one.expand(tensor.shape),
    ))()  # fmt: skip
