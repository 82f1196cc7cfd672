"""One process of tests/test_pool_torture.py: verbs on one pool until somebody kills it or the time is over.

    python tests/pool_torture_worker.py ROOT SEED SECONDS LOG

Each verb that was finished adds a line to LOG.
"""

from __future__ import annotations

import os
import random
import sys
import time

from cowshed.errors import CowshedError
from cowshed.pool.host import Host

FORMATS = ("raw", "qcow2", "vmdk")
#: refusals that other processes' work explains
EXPECTED = (
    "is still in use.", "is still being allocated.", "exists already", "already in use.", "already exists",
    "no storage vol with matching", "is the backing file of", "can't shrink", "Can't shrink", "does not support resize",
    "inaccessible backing store", 'Failed to get "', "Could not open",
)  # fmt: skip


def document(name: str, fmt: str, size: int, backing: str | None = None) -> str:
    below = f"<backingStore><path>{backing}</path><format type='qcow2'/></backingStore>" if backing else ""
    return (
        f"<volume><name>{name}</name><capacity>{size}</capacity><allocation>0</allocation>"
        f"<target><format type='{fmt}'/></target>{below}</volume>"
    )


def main() -> None:
    root, seed, seconds, log = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), sys.argv[4]
    choose = random.Random(seed)
    pool = Host(root=root).pool("torture")
    deadline = time.monotonic() + seconds
    with open(log, "a", buffering=1) as out:
        while time.monotonic() < deadline:
            verb = choose.choice(
                ("create", "create", "clone", "clone", "overlay", "resize", "delete", "delete", "fill")
            )
            try:
                step(pool, verb, choose)
            except CowshedError as error:
                if not any(text in str(error) for text in EXPECTED):
                    out.write(f"UNEXPECTED {verb}: {error!r}\n")
                    os._exit(3)
                verb = "refused"
            out.write(verb + "\n")


def step(pool, verb: str, choose: random.Random) -> None:
    name = f"v{choose.randrange(40)}"
    fmt = choose.choice(FORMATS)
    size = choose.randrange(1, 24) << 20
    if verb == "create":
        prealloc = fmt == "qcow2" and choose.random() < 0.3
        pool.create_volume(document(name, fmt, size), prealloc_metadata=prealloc)
        return
    found = pool.volume_names()
    if not found:
        return
    other = pool.volume(choose.choice(found)[0])
    if verb == "clone":
        pool.clone_volume(document(name, fmt, 0), other)
    elif verb == "overlay":
        if other.definition.target.format == "qcow2":
            pool.create_volume(document(name, "qcow2", other.definition.capacity, other.path))
    elif verb == "resize":
        other.resize(other.definition.capacity + (choose.randrange(1, 8) << 20))
    elif verb == "delete":
        other.delete()
    elif other.definition.target.format == "raw":
        with open("/dev/urandom", "rb") as noise:
            data = noise.read(choose.randrange(1, 1 << 20))
        if other.definition.capacity >= len(data):
            import io

            other.upload(io.BytesIO(data))


main()
