"""Where a disk's bytes are: sparse regions without reading, and reading without copies.

    python examples/extents.py [IMAGE]
"""

import sys
import tempfile
import zlib
from pathlib import Path

import cowshed

KINDS = {
    cowshed.DATA: "data",
    cowshed.ZERO: "zero",
    cowshed.HOLE: "hole",
    cowshed.COMPRESSED: "compressed",
    cowshed.ENCRYPTED: "encrypted",
}


def checksum(image: Path) -> int:
    """CRC-32 of the data alone; what is known to be zero is never read. One buffer serves all reads."""
    total = 0
    buffer = memoryview(bytearray(1 << 20))
    with cowshed.open(image) as disk:
        for extent in disk.extents():
            print(f"{extent.offset:12} {extent.length:12} {KINDS[extent.kind]:10} layer {extent.depth}")
            if extent.kind in (cowshed.ZERO, cowshed.HOLE):
                continue
            offset, end = extent.offset, extent.offset + extent.length
            while offset < end:
                part = buffer[: min(len(buffer), end - offset)]
                disk.read_into(offset, part)
                total = zlib.crc32(part, total)
                offset += len(part)
    return total


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(f"{checksum(Path(sys.argv[1])):08x}")
    else:
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch, "disk.qcow2")
            cowshed.create(path, "qcow2", size="1G")
            with cowshed.open(path, writable=True) as target:
                target.write(5 << 20, b"x" * (3 << 20))
                target.write_zeroes(100 << 20, 1 << 20)
            assert checksum(path) == zlib.crc32(b"x" * (3 << 20))
