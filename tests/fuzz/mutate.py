"""Mutants of sound images: what one seed changes is always the same.

python tests/fuzz/mutate.py BASE SEED OUT        writes the mutant SEED of the base BASE to OUT, for a debugger
"""

from __future__ import annotations

import random
import struct
import sys
from collections.abc import Callable
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

import judges
from damage import COPIED, OFFSET, PACKED, Anatomy, bases

#: (offset, size) of the header's fields
HEADER = (
    (4, 4), (8, 8), (16, 4), (20, 4), (24, 8), (32, 4), (36, 4), (40, 8), (48, 8), (56, 4), (60, 4), (64, 8), (72, 8),
    (80, 8), (88, 8), (96, 4), (100, 4), (104, 1),
)  # fmt: skip

Mutation = Callable[[bytearray, random.Random, Anatomy], None]


def all_bases(directory: Path) -> dict[str, tuple[Path, str]]:
    """Name -> (path, format) of the images that are mutated."""
    found = {name: (path, "qcow2") for name, path in bases(directory).items()}
    vmdk = directory / "sparse.vmdk"
    judges.qemu_img("convert", "-f", "qcow2", "-O", "vmdk", found["plain"][0], vmdk)
    found["vmdk"] = (vmdk, "vmdk")
    return found


def number(rng: random.Random, bits: int, anatomy: Anatomy | None) -> int:
    """A number that is likely to hurt."""
    top = (1 << bits) - 1
    kind = rng.randrange(8)
    if kind == 0:
        value = rng.choice([0, 1, 2, 511, 512, 513])
    elif kind == 1:
        value = top - rng.choice([0, 0, 1, 511, 65535])
    elif kind == 2:
        value = 1 << rng.randrange(bits)
    elif kind == 3:
        value = (1 << rng.randrange(bits)) - 1
    elif kind == 4 and anatomy is not None:
        value = rng.randrange(anatomy.length // anatomy.cluster + 3) * anatomy.cluster
        value |= rng.choice([0, COPIED, COPIED | 1, PACKED, 1, 1 << 62 | 1 << 54]) if bits == 64 else 0
    elif kind == 5 and anatomy is not None:
        value = anatomy.length + rng.choice([-anatomy.cluster, -1, 0, 1, anatomy.cluster])
    else:
        value = rng.getrandbits(bits)
    return value & top


def pack(value: int, size: int) -> bytes:
    return value.to_bytes(size, "big")


def places(anatomy: Anatomy) -> list[tuple[int, int]]:
    """(offset, length) of the metadata of a qcow2 image."""
    cluster = anatomy.cluster
    found = [(0, 112), (anatomy.extensions, 400), (anatomy.l1, max(8, anatomy.l1_size * 8)), (anatomy.table, 64)]
    found += [(anatomy.block, min(cluster, 512)), (anatomy.l2, min(cluster, 256))]
    if anatomy.nb_snapshots:
        found += [(anatomy.snapshots, 200), (anatomy.u64(anatomy.snapshots), 8)]
    if anatomy.bitmaps:
        directory = anatomy.u64(anatomy.bitmaps + 24)
        found += [(anatomy.bitmaps, 32), (directory, 64), (anatomy.u64(directory), 64)]
    return found


def flip(raw: bytearray, rng: random.Random, anatomy: Anatomy) -> None:
    offset, length = rng.choice(places(anatomy))
    for _ in range(rng.choice([1, 1, 1, 2, 5])):
        at = offset + rng.randrange(length)
        if at < len(raw):
            raw[at] ^= 1 << rng.randrange(8)


def field(raw: bytearray, rng: random.Random, anatomy: Anatomy) -> None:
    """A field of the header, of an extension or of a table takes another value."""
    offset, length = rng.choice(places(anatomy))
    size = rng.choice([1, 2, 4, 4, 8, 8, 8])
    at = offset + rng.randrange(max(1, length // size)) * size
    if offset == 0:  # the header's fields are not all aligned to their size
        at, size = rng.choice(HEADER)
    if at + size <= len(raw):
        raw[at : at + size] = pack(number(rng, size * 8, anatomy), size)


def entries(raw: bytearray, rng: random.Random, anatomy: Anatomy) -> None:
    """Some entries of a table point somewhere else."""
    offset, length = rng.choice(places(anatomy)[2:])
    for _ in range(rng.choice([1, 2, 8])):
        at = offset + rng.randrange(max(1, length // 8)) * 8
        if at + 8 > len(raw):
            continue
        old = int.from_bytes(raw[at : at + 8], "big")
        value = rng.choice(
            [
                number(rng, 64, anatomy), old ^ COPIED, old ^ PACKED, old ^ 1, old + anatomy.cluster, old | OFFSET,
                old ^ (1 << rng.randrange(64)), anatomy.l2 | COPIED, anatomy.l1 | COPIED, anatomy.table, COPIED,
            ]
        )  # fmt: skip
        raw[at : at + 8] = pack(value & ((1 << 64) - 1), 8)


def clusters(raw: bytearray, rng: random.Random, anatomy: Anatomy) -> None:
    """One cluster is overwritten with another one, with noise or with zeroes."""
    size, count = anatomy.cluster, max(1, len(raw) // anatomy.cluster)
    to, source = rng.randrange(count) * size, rng.randrange(count) * size
    kind = rng.randrange(4)
    part = bytes(raw[source : source + size])
    if kind == 1:
        part = rng.randbytes(len(part))
    elif kind == 2:
        part = bytes(len(part))
    if to == 0:  # keep it recognisable
        part = bytes(raw[:104]) + part[104:]
    raw[to : to + len(part)] = part


def length(raw: bytearray, rng: random.Random, anatomy: Anatomy) -> None:
    """Cut, or grown by noise."""
    if rng.random() < 0.7:
        del raw[rng.randrange(len(raw) + 1) :]
    else:
        raw += rng.randbytes(rng.randrange(1, 3 * anatomy.cluster))


MUTATIONS: tuple[Mutation, ...] = (flip, flip, field, field, field, entries, entries, entries, clusters, length)


def mutant(source: Path, fmt: str, seed: int) -> bytes:
    """The mutant ``seed`` of an image."""
    rng = random.Random(f"{source.name} {seed}")
    raw = bytearray(source.read_bytes())
    if fmt == "qcow2":
        anatomy = Anatomy(source)
        for _ in range(rng.choice([1, 1, 1, 2, 3])):
            rng.choice(MUTATIONS)(raw, rng, anatomy)
        return bytes(raw)
    # another format: its descriptor, header and tables stand in the first 64 KiB
    for _ in range(rng.choice([1, 1, 2, 4])):
        size = rng.choice([1, 4, 8])
        at = rng.choice([rng.randrange(80), rng.randrange(2048), rng.randrange(1 << 16)])
        if rng.random() < 0.1:
            del raw[rng.randrange(len(raw) + 1) :]
        if at + size <= len(raw):
            value = struct.pack(">Q", number(rng, 64, None))[-size:]
            raw[at : at + size] = value if rng.random() < 0.3 else value[::-1]
    return bytes(raw)


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as scratch:
        path, kind = all_bases(Path(scratch))[sys.argv[1]]
        Path(sys.argv[3]).write_bytes(mutant(path, kind, int(sys.argv[2])))
