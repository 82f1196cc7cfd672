"""Volume descriptors (ECMA-119, 8), Joliet's supplementary one, El Torito's boot record; UDF's marks (ECMA-167)."""

from __future__ import annotations

import struct

from ....errors import CorruptError, FeatureError, ForeignError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ....block.node import Node

SECTOR = 2048
#: the first descriptor's sector, and how many are looked at
FIRST, MOST = 16, 100
BOOT, PRIMARY, SUPPLEMENTARY, TERMINATOR = 0, 1, 2, 255
#: escape sequences of UCS-2 levels 1 to 3
JOLIET = (b"%/@", b"%/C", b"%/E")
#: dates in the primary descriptor: creation, modification; 17 bytes
CREATED, MODIFIED = 813, 830


class Volume:
    """``primary``: the primary descriptor's bytes, ``joliet``: the supplementary one's or None. ``bootable``: there is
    an El Torito boot record; ``hybrid``: the image is a partitioned disk as well. ``block_size``, ``blocks``."""

    __slots__ = ("block_size", "blocks", "bootable", "hybrid", "joliet", "primary")

    def __init__(self, node: Node) -> None:
        """Raises ForeignError, FeatureError, CorruptError."""
        primary: bytes | None = None
        self.joliet: bytes | None = None
        self.bootable = False
        udf = False
        ended = False
        for number in range(FIRST, FIRST + MOST):
            at = number * SECTOR
            if at + SECTOR > node.size:
                break
            sector = node.read(at, SECTOR)
            mark, kind = sector[1:6], sector[0]
            if mark == b"CD001" and not ended:
                if kind == PRIMARY and primary is None:
                    primary = sector
                elif kind == SUPPLEMENTARY and sector[88:91] in JOLIET and self.joliet is None:
                    self.joliet = sector
                elif kind == BOOT and sector[7:30] == b"EL TORITO SPECIFICATION":
                    self.bootable = True
                elif kind == TERMINATOR:
                    ended = True
            elif mark in (b"NSR02", b"NSR03"):
                udf = True
                break
            elif mark in (b"BEA01", b"BOOT2", b"CD001"):
                continue
            elif sector[9:14] == b"CDROM" and number == FIRST:
                raise FeatureError("High Sierra is not possible yet", path=node.filename, layer="High Sierra")
            else:
                break
        if udf:
            raise FeatureError(
                "UDF is not possible yet", path=node.filename, layer="UDF", value="NSR descriptor",
                hint="the disc may have ISO 9660 files too, but Linux shows those of UDF",
            )  # fmt: skip
        if primary is None:
            raise ForeignError("Not an ISO 9660 file system: no primary volume descriptor", path=node.filename)
        self.primary = primary
        (self.block_size,) = struct.unpack_from("<H", primary, 128)
        (self.blocks,) = struct.unpack_from("<I", primary, 80)
        if self.block_size not in (512, 1024, 2048):
            raise CorruptError(
                f"Damaged ISO 9660 volume descriptor: block size {self.block_size}", path=node.filename,
                layer="primary volume descriptor", field="logical block size", offset=FIRST * SECTOR + 128,
                value=self.block_size, limit="512, 1024, 2048",
            )  # fmt: skip
        head = node.read(0, 512)
        self.hybrid = head[510:] == b"\x55\xaa" and any(head[446 + 4 + 16 * part] for part in range(4))

    @property
    def uuid(self) -> str:
        """When it was last changed, or made, as libblkid writes it."""
        for at in (MODIFIED, CREATED):
            date = self.primary[at : at + 17]
            if date[:16].isdigit() and (date[:16].strip(b"0") or date[16]):
                text = date[:16].decode()
                return "-".join((text[:4], *(text[part : part + 2] for part in range(4, 16, 2))))
        return ""

    @property
    def label(self) -> str:
        """Joliet's if there is one, made whole by the primary's where that goes on."""
        plain = self.primary[40:72]
        if self.joliet is None:
            return plain.decode("latin-1").rstrip(" \0")
        units = self.joliet[40:72]
        wide = units.decode("utf-16-be", "replace")
        if len(wide) == 16 and all(
            low in (high, "_") for low, high in zip(plain[:16].decode("latin-1"), wide, strict=True)
        ):
            wide += plain[16:].decode("latin-1")
        return wide.split("\0")[0].rstrip(" ")


#: texts of the primary descriptor (ECMA-119, 8.4): name, first byte, length
_TEXTS = (
    ("system_id", 8, 32), ("volume_id", 40, 32), ("volume_set_id", 190, 128), ("publisher_id", 318, 128),
    ("data_preparer_id", 446, 128), ("application_id", 574, 128), ("copyright_file_id", 702, 37),
    ("abstract_file_id", 739, 37), ("bibliographic_file_id", 776, 37),
)  # fmt: skip
_DATES = (
    ("volume_creation_t", CREATED), ("volume_modification_t", MODIFIED), ("volume_expiration_t", 847),
    ("volume_effective_t", 864),
)  # fmt: skip


def primary_facts(sector: bytes) -> list[tuple[str, str | int]]:
    """The fields of a primary volume descriptor that tell where an image is from, in their order; times are seconds
    since 1970, -1 where none is given. Raises ForeignError where it is none."""
    if len(sector) < SECTOR or sector[0] != PRIMARY or sector[1:6] != b"CD001":
        raise ForeignError("Not an ISO 9660 file system: no primary volume descriptor")
    texts = {name: _text(sector[at : at + length]) for name, at, length in _TEXTS}
    found: list[tuple[str, str | int]] = [(name, texts.pop(name)) for name in ("system_id", "volume_id")]
    found.append(("volume_space_size", struct.unpack_from("<I", sector, 80)[0]))
    numbers = (("volume_set_size", 120), ("volume_sequence_number", 124), ("logical_block_size", 128))
    found += [(name, struct.unpack_from("<H", sector, at)[0]) for name, at in numbers]
    found += texts.items()
    return found + [(name, _seconds(sector[at : at + 17])) for name, at in _DATES]


def _text(raw: bytes) -> str:
    return raw.split(b"\0")[0].rstrip(b" ").decode("utf-8", "surrogateescape")


def _seconds(date: bytes) -> int:
    """A date of 16 digits and quarters of an hour east of Greenwich (ECMA-119, 8.4.26.1)."""
    import calendar

    if not date[:16].isdigit() or not date[:16].strip(b"0"):
        return -1
    parts = [int(date[:4]), *(int(date[at : at + 2]) for at in range(4, 14, 2))]
    east: int = struct.unpack("b", date[16:])[0]
    try:
        return calendar.timegm(tuple(parts)) - east * 900
    except (ValueError, OverflowError):
        return -1
