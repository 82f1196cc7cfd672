"""A read-only base and an overlay for each of two machines; then one machine's changes go into the base.

    python examples/overlays.py [DIRECTORY]
"""

import sys
import tempfile
from pathlib import Path

import cowshed


def main(directory: Path) -> None:
    base = directory / "base.qcow2"
    cowshed.create(base, "qcow2", size="1G")
    with cowshed.open(base, writable=True) as disk:
        disk.write(0, b"installed once")

    for name in ("alice", "bob"):
        # the backing file's name is seen from the overlay, so that the directory can move as a whole
        overlay = directory / f"{name}.qcow2"
        cowshed.create(overlay, "qcow2", backing="base.qcow2", backing_fmt="qcow2")
        with cowshed.open(overlay, writable=True) as disk:
            disk.write(1 << 20, f"notes of {name}".encode())

    with cowshed.open(directory / "alice.qcow2") as disk:
        print("alice sees:", disk.read(0, 14), "and", disk.read(1 << 20, 14))

    facts = cowshed.info(directory / "bob.qcow2", backing_chain=True)
    assert facts.backing is not None
    print(f"bob: {facts.virtual_size} bytes of disk, {facts.actual_size} bytes of file, on {facts.backing.filename}")

    # while two overlays stand on the base, only one of them can be committed: the other would see another disk
    (directory / "alice.qcow2").unlink()
    cowshed.commit(directory / "bob.qcow2")
    with cowshed.open(base) as disk:
        print("base holds:", disk.read(1 << 20, 12))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as scratch:
            main(Path(scratch))
