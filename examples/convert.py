"""A raw disk into a compressed qcow2 and back, with progress, and a comparison of both ends.

    python examples/convert.py [SOURCE TARGET.qcow2]
"""

import os
import sys
import tempfile
from pathlib import Path

import cowshed


def show(progress: cowshed.Progress) -> None:
    print(f"\r{progress.fraction:6.1%}", end="", file=sys.stderr)


def main(source: Path, target: Path) -> None:
    cowshed.convert(
        source, target, "qcow2", {"compression_type": "zlib"}, compress=True, progress=cowshed.Progress("convert", show)
    )
    print(file=sys.stderr)
    print(f"{source.stat().st_size} bytes became {target.stat().st_size}")
    outcome = cowshed.compare(source, target)
    print("the disks are", outcome.verdict)
    assert outcome


if __name__ == "__main__":
    if len(sys.argv) > 2:
        main(Path(sys.argv[1]), Path(sys.argv[2]))
    else:
        with tempfile.TemporaryDirectory() as scratch:
            disk = Path(scratch, "disk.raw")
            with open(disk, "wb") as file:
                file.truncate(64 << 20)
                file.seek(10 << 20)
                file.write(b"some text that packs well\n" * 100_000)
                file.write(os.urandom(1 << 20))
            main(disk, Path(scratch, "disk.qcow2"))
