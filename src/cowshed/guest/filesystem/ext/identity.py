"""The label and the uuid of a file system are changed, in its superblock and in the copies of it."""

from __future__ import annotations

import errno

from ..base import GuestError
from .superblock import CSUM_SEED, GDT_CSUM, Superblock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .filesystem import ExtFileSystem
    from .write import Writer


def _copies(fs: ExtFileSystem) -> None:
    """The identity goes into the copies of the superblock, too."""
    sb = fs.sb
    for group in range(1, sb.groups):
        if not sb.has_super(group):
            continue
        block = fs.volume.change(sb.group_first_block(group), "superblock copy")
        copy = Superblock(bytes(block[:1024]))
        copy.raw[0x68:0x88] = sb.raw[0x68:0x88]
        copy.set(0x60, copy.incompat | sb.incompat & CSUM_SEED)
        copy.raw[0x270:0x274] = sb.raw[0x270:0x274]
        block[:1024] = copy.pack()


def set_label(fs: ExtFileSystem, writer: Writer, label: str) -> None:
    """At most 16 bytes. GuestError EINVAL for longer ones."""
    data = label.encode("utf-8", "surrogateescape")
    if len(data) > 16 or b"\0" in data:
        raise GuestError(errno.EINVAL, hint="a label has at most 16 bytes")
    fs.sb.raw[0x78:0x88] = data.ljust(16, b"\0")
    fs.label = label
    _copies(fs)
    writer.super_changed = True


def set_uuid(fs: ExtFileSystem, writer: Writer, uuid: str) -> None:
    """Checksums that begin with the old uuid stay right: from now on their seed is stored by itself (feature
    metadata_csum_seed). GuestError EINVAL for what is no uuid."""
    text = uuid.replace("-", "")
    try:
        data = bytes.fromhex(text)
    except ValueError:
        data = b""
    if len(data) != 16 or len(text) != 32:
        raise GuestError(errno.EINVAL, hint="a uuid has 32 hexadecimal digits")
    sb = fs.sb
    if data == sb.uuid:
        return
    if sb.metadata_csum and not sb.incompat & CSUM_SEED:
        sb.set(0x270, sb.seed)
        sb.set_features(incompat=CSUM_SEED)
    if sb.ro_compat & GDT_CSUM and not sb.metadata_csum:
        # checksums of descriptors begin with the uuid: all are read with the old one and stored with the new one
        for number in range(sb.groups):
            writer.allocator.changed_groups.add(fs.groups[number].number)
    sb.raw[0x68:0x78] = data
    sb.uuid = data
    _copies(fs)
    text = data.hex()
    fs.uuid = f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}" if any(data) else ""
    writer.super_changed = True
