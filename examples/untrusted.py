"""Looking at an image that somebody else made: what may it name, and what does it claim to be?

An image can name other files: a backing file, a file with its data. Whoever made it may name /etc/shadow, or a server
in your network. ``trust="none"`` opens the file that was given and nothing else.

    python examples/untrusted.py [IMAGE]
"""

import sys
import tempfile
from pathlib import Path

import cowshed


def inspect(image: Path) -> bool:
    """Print what the image is; is it safe to convert?"""
    try:
        facts = cowshed.info(image)  # facts alone: opens nothing that the image names
    except cowshed.CowshedError as error:
        print("not an image:", error)
        return False
    print(f"{facts.format}, {facts.virtual_size} bytes, backing file: {facts.backing_filename!r}")
    try:
        with cowshed.open(image, trust="none") as disk:
            data = sum(extent.length for extent in disk.extents() if extent.kind == cowshed.DATA)
            print(f"stands alone, {data} bytes of data")
            return True
    except cowshed.OpenError as error:
        # the reason itself is the cause; a TrustError when the image names something
        print(f"refused ({type(error.__cause__).__name__}): {error}")
        return False


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.exit(not inspect(Path(sys.argv[1])))
    with tempfile.TemporaryDirectory() as scratch:
        good, evil, broken = (Path(scratch, name) for name in ("good.qcow2", "evil.qcow2", "broken.qcow2"))
        cowshed.create(good, "qcow2", size="10M")
        cowshed.create(evil, "qcow2", size="10M", backing="/etc/passwd", backing_fmt="raw", unsafe=True)
        broken.write_bytes(good.read_bytes()[:100])
        assert inspect(good)
        assert not inspect(evil)
        assert not inspect(broken)
