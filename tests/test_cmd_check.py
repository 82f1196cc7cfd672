"""``qemu-img check``: what is found and mended, in the real tool's words and with its exit status."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

import judges
from cowshed.errors import OpenError, UnsupportedError, UsageError
from cowshed.ops.check import check
from differential import Arena
from verbs import arena, campaign, guest_of, lines

__all__ = ["arena"]  # a fixture

WAYS = (
    [],
    ["--output=json"],
    ["-r", "leaks"],
    ["-r", "all"],
    ["-r", "all", "--output=json"],
    ["-q"],
    ["-q", "-r", "all"],
)


class Table:
    """Places in a freshly made image of 64 KiB clusters: header, refcount table, refcount block, L1, L2, data."""

    def __init__(self, data: bytes) -> None:
        self.data = bytearray(data)
        self.l1 = struct.unpack_from(">Q", data, 40)[0]
        self.l2 = struct.unpack_from(">Q", data, self.l1)[0] & 0x00FFFFFFFFFFFE00
        self.table = struct.unpack_from(">Q", data, 48)[0]
        self.block = struct.unpack_from(">Q", data, self.table)[0]

    def count(self, cluster: int, value: int) -> None:
        struct.pack_into(">H", self.data, self.block + 2 * cluster, value)

    def entry(self, index: int) -> int:
        return int(struct.unpack_from(">Q", self.data, self.l2 + 8 * index)[0])

    def set(self, offset: int, value: int) -> None:
        struct.pack_into(">Q", self.data, offset, value)


def leak(table: Table) -> None:
    end = len(table.data) // 65536 + 1
    table.data += bytes((end + 3) * 65536 - len(table.data))
    table.count(end, 1)
    table.count(end + 1, 1)


def too_high(table: Table) -> None:
    table.count(6, 3)


def too_low(table: Table) -> None:
    table.count(6, 0)


def leak_and_too_low(table: Table) -> None:
    leak(table)
    too_low(table)


def not_copied(table: Table) -> None:
    table.set(table.l2, table.entry(0) & ~(1 << 63))


def unaligned(table: Table) -> None:
    table.set(table.l2, table.entry(0) + 512)


def shared(table: Table) -> None:
    table.set(table.l2 + 8, table.entry(0))


def beyond(table: Table) -> None:
    table.set(table.l2, 1 << 63 | 0x10000000000)


def l2_beyond(table: Table) -> None:
    table.set(table.l1, 1 << 63 | 0x10000000)


def l2_unaligned(table: Table) -> None:
    table.set(table.l1, (1 << 63 | table.l2) + 512)


DAMAGES: list[Callable[[Table], None]] = [
    leak, too_high, too_low, leak_and_too_low, not_copied, unaligned, shared, beyond, l2_beyond, l2_unaligned,
]  # fmt: skip


def again(folder: Path, name: str) -> object:
    """What the real tool finds afterwards."""
    done = judges.run("qemu-img", "check", name, cwd=folder, ok=(0, 1, 2, 3))
    return done.returncode, done.stdout


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damage(arena: Arena, damage: Callable[[Table], None]) -> None:
    arena.setup("create -q -f qcow2 a 10M", ["qemu-io", "a", "-c", "write -P 1 0 1M", "-c", "write -P 2 3M 70k"])
    table = Table((arena.dir / "a").read_bytes())
    damage(table)
    (arena.dir / "a").write_bytes(table.data)
    campaign(arena, [["check", *way, "a"] for way in WAYS], (again, "a"))


def test_sound_images(arena: Arena) -> None:
    """Statistics of every kind of image."""
    kinds = {
        "empty": "", "v2": "-o compat=v2", "small": "-o cluster_size=512", "large": "-o cluster_size=2M",
        "extended": "-o extended_l2=on",
        "external": "-o data_file=d", "external_raw": "-o data_file=e,data_file_raw=on",
        "full": "-o preallocation=full",
        "metadata": "-o preallocation=metadata", "narrow": "-o refcount_bits=1", "wide": "-o refcount_bits=64",
        "lazy": "-o lazy_refcounts=on",
    }  # fmt: skip
    for kind, options in kinds.items():
        arena.setup(f"create -q -f qcow2 {options} {kind} 10M")
        if kind != "empty":
            arena.setup(
                ["qemu-io", kind, "-c", "write -P 1 5M 1M", "-c", "write -P 2 100k 70k", "-c", "write -P 3 9M 4k"]
            )
    arena.setup(
        "create -q -f qcow2 nothing 0", "convert -c -O qcow2 v2 packed", "create -q -f qcow2 -b v2 -F qcow2 over"
    )
    arena.setup(
        ["qemu-io", "over", "-c", "write -P 1 0 64k"],
        "snapshot -c s packed",
        "snapshot -c s over",
        "bitmap --add over b",
    )
    trials = [["check", *way, name] for name in [*kinds, "nothing", "packed", "over"] for way in WAYS[:2]]
    trials += [["check", "-r", "all", name] for name in ("empty", "packed", "extended", "narrow")]
    campaign(arena, trials)


ARGUMENTS = """
check
check a b
check nope
check -f nope a
check -f raw a
check -f vmdk a
check r
check --output=json r
check -q r
check -r all r
check -f raw -r all r
check v
check --output=json v
check -r leaks v
check -r foo a
check -r a
check --repair=leaks a
check --output=x a
check -T foo a
check -T none a
check -U a
check -U -r all a
check --image-opts driver=qcow2,file.filename=a
check --image-opts --output=json driver=qcow2,file.filename=a
check --image-opts driver=qcow2,file.filename=nope
check --image-opts -f qcow2 a
check --output=json file:a
check gone
check -r all gone
check -p a
check --object secret,id=a,data=b a
"""


def test_arguments(arena: Arena) -> None:
    arena.setup(
        "create -q -f qcow2 a 1M", "create -q -f raw r 1M", "create -q -f vmdk v 1M",
        "create -q -f qcow2 -b a -F qcow2 gone",
        "rebase -u -b nope -F qcow2 gone",
    )  # fmt: skip
    campaign(arena, lines(ARGUMENTS))


def test_as_a_process(arena: Arena) -> None:
    """The order of the streams when an error is found and mended."""
    arena.setup("create -q -f qcow2 a 10M", ["qemu-io", "a", "-c", "write -P 1 0 1M"])
    table = Table((arena.dir / "a").read_bytes())
    leak_and_too_low(table)
    (arena.dir / "a").write_bytes(table.data)
    for way in WAYS:
        arena.check("check", *way, "a", link=True, merged=True, changes=True)


def test_api(arena: Arena) -> None:
    arena.setup("create -q -f qcow2 a 10M", ["qemu-io", "a", "-c", "write -P 1 0 1M"], "create -q -f raw r 1M")
    path = arena.dir / "a"
    before = guest_of(arena.dir, "a")
    sound = check(str(path))
    assert sound.verdict == "clean" and sound.repaired is None
    assert sound.result.allocated_clusters == 16 and sound.result.total_clusters == 160
    table = Table(path.read_bytes())
    leak(table)
    path.write_bytes(table.data)
    found = check(str(path))
    assert found.verdict == "leaks" and found.result.leaks == 2
    mended = check(str(path), repair="leaks")
    assert mended.verdict == "clean" and mended.repaired is not None and mended.repaired.leaks_fixed == 2
    assert mended.to_dict()["leaks-fixed"] == 2 and "leaks" not in mended.to_dict()
    table.count(6, 0)
    path.write_bytes(table.data)
    assert check(str(path)).verdict == "corrupt"
    assert check(str(path), repair="all").verdict == "clean"
    assert guest_of(arena.dir, "a") == before
    with pytest.raises(UnsupportedError):
        check(str(arena.dir / "r"))
    with pytest.raises(OpenError):
        check(str(arena.dir / "nope"))
    with pytest.raises(UsageError, match="repair must be"):
        check(str(path), repair="some")  # type: ignore[arg-type]
