"""A pool of disks below one directory: a template, two machines on it, a backup, and what is refused.

    python examples/pools.py [DIRECTORY]
"""

import sys
import tempfile
from pathlib import Path

from cowshed import pool
from cowshed.errors import PoolError


def volume(name: str, gibibytes: int, backing: str | None = None) -> str:
    """The document of a qcow2 volume."""
    below = f"<backingStore><path>{backing}</path><format type='qcow2'/></backingStore>" if backing else ""
    return (
        f"<volume><name>{name}</name><capacity unit='GiB'>{gibibytes}</capacity>"
        f"<target><format type='qcow2'/></target>{below}</volume>"
    )


def main(directory: Path) -> None:
    # all state stays below the directory; Host() alone is the machine's, or the user's
    host = pool.Host(root=str(directory))
    images = host.define(f"<pool type='dir'><name>images</name><target><path>{directory}/images</path></target></pool>")
    images.start(build=True)

    template = images.create_volume(volume("template.qcow2", 8))
    for name in ("alice", "bob"):
        images.create_volume(volume(f"{name}.qcow2", 8, template.path))
    for disk in images.volumes():
        print(f"{disk.name}: {disk.info().capacity} bytes of disk")
    print("on the template:", ", ".join(disk.name for disk in template.children()))

    try:
        template.delete()
    except PoolError as error:
        print(f"refused with code {error.code}")

    # a clone stands by itself, so its bytes are a backup that needs nothing else
    whole = images.clone_volume(volume("whole.qcow2", 8), images.volume("alice.qcow2"))
    whole.download(directory / "backup.qcow2", sparse=True)
    whole.delete()
    print("promised:", images.info().promised, "bytes")

    # several processes may do this at once; what is true is what is on the disk
    images.destroy()
    print(images.state, [path.name for path in sorted((directory / "images").iterdir())])
    images.undefine()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]).resolve())
    else:
        with tempfile.TemporaryDirectory() as scratch:
            main(Path(scratch))
