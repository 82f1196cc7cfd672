"""A format of one's own: disks with every byte complemented. Eighty lines give it reading, mapping and conversion.

A package does the same with an entry point in the group ``cowshed.drivers`` that names its Driver.

    python examples/driver.py
"""

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cowshed

MAGIC = b"COMPLEMENT-DISK\n"
HEADER = 512
FLIP = bytes(255 - value for value in range(256))


class ComplementNode(cowshed.Node):
    """Guest byte N is the complement of byte HEADER + N of the file."""

    driver = "complement"
    is_format = True

    def __init__(self, file: cowshed.Node) -> None:
        super().__init__(file.filename, read_only=True)
        if file.size < HEADER or file.read(0, len(MAGIC)) != MAGIC:
            raise cowshed.ForeignError("Image is not in complement format", path=file.filename)
        self.children["file"] = file
        self.size = file.size - HEADER

    def layer_extents(self, offset: int, length: int) -> Iterator[cowshed.Extent]:
        # the bytes are not in the file as the guest sees them: the core asks unpack_into for them
        yield cowshed.Extent(offset, length, cowshed.COMPRESSED, self, offset, 0, self)

    def unpack_into(self, offset: int, view: memoryview) -> None:
        view[:] = self.file.read(HEADER + offset, len(view)).translate(FLIP)


def open_complement(file: cowshed.Node, options: dict[str, Any], context: Any) -> cowshed.Node:
    if context.writable:
        raise cowshed.ReadOnlyError("complement disks are read-only", path=file.filename)
    return ComplementNode(file)


def probe(head: bytes, filename: str) -> int:
    return 100 if head.startswith(MAGIC) else 0


if __name__ == "__main__":
    sys.modules.setdefault("complement_driver", sys.modules["__main__"])
    cowshed.register_driver(
        cowshed.Driver("complement", open="complement_driver:open_complement", probe=probe, suffixes=("not",))
    )
    with tempfile.TemporaryDirectory() as scratch:
        image, copy = Path(scratch, "disk.not"), Path(scratch, "disk.qcow2")
        image.write_bytes(MAGIC.ljust(HEADER, b"\0") + (b"hello" * 1000).ljust(8192, b"\0").translate(FLIP))
        print(cowshed.info(image).format)
        cowshed.convert(image, copy, "qcow2")
        with cowshed.open(copy) as disk:
            print(disk.read(0, 10))
            assert disk.read(0, 8192) == (b"hello" * 1000).ljust(8192, b"\0")
