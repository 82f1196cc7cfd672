"""Internal snapshots: keep a state, change the disk, look at the old state, go back to it.

    python examples/snapshots.py
"""

import tempfile
from pathlib import Path

import cowshed


def main(image: Path) -> None:
    cowshed.create(image, "qcow2", {"cluster_size": 65536}, size="100M")
    with cowshed.open(image, writable=True) as disk:
        disk.write(0, b"before the upgrade")
    cowshed.snapshot_create(image, "before")

    with cowshed.open(image, writable=True) as disk:
        disk.write(0, b"upgrade went wrong")

    for snapshot in cowshed.snapshot_list(image):
        print(snapshot.id, snapshot.name, snapshot.disk_size)

    with cowshed.open(image) as disk, disk.snapshot_view("before") as old:
        print("now:", disk.read(0, 18), "then:", old.read(0, 18))

    cowshed.snapshot_apply(image, "before")
    cowshed.snapshot_delete(image, "before")
    with cowshed.open(image) as disk:
        assert disk.read(0, 18) == b"before the upgrade"
    print("check:", cowshed.check(image).verdict)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        main(Path(scratch, "disk.qcow2"))
