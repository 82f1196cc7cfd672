"""The facts of a LUKS volume whatever its version, and the header of version 1 (LUKS On-Disk Format 1.2.3)."""

from __future__ import annotations

import struct

from ....errors import CorruptError, FeatureError, ForeignError, FormatError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...node import Node

MAGIC = b"LUKS\xba\xbe"
MAGIC_SECOND = b"SKUL\xba\xbe"
SECTOR = 512
STRIPES = 4000
MAX_STRIPES = 32768
MAX_KEY = 512

_HEAD = struct.Struct(">6sH32s32s32sII20s32sI40s")
_SLOT = struct.Struct(">II32sII")
_SLOTS = 8
_SIZE = _HEAD.size + _SLOTS * _SLOT.size  # 592
_ACTIVE = 0x00AC71F3
_DISABLED = 0x0000DEAD


class Kdf:
    """``kind``: pbkdf2, argon2i, argon2id. ``iterations``: of PBKDF2, or Argon2's passes; ``memory``: KiB."""

    __slots__ = ("cpus", "hash", "iterations", "kind", "memory", "salt")

    def __init__(
        self, kind: str, salt: bytes, iterations: int, hash_name: str = "", memory: int = 0, cpus: int = 1
    ) -> None:
        self.kind = kind
        self.salt = salt
        self.iterations = iterations
        self.hash = hash_name
        self.memory = memory
        self.cpus = cpus


class Keyslot:
    """``offset``, ``size``: bytes of the area in the file; ``cipher``: the area's ("aes-xts-plain64"), with keys of
    ``area_key_size`` bytes; ``key_size``: bytes of the volume key split into ``stripes`` with ``af_hash``."""

    __slots__ = (
        "active", "af_hash", "area_key_size", "cipher", "id", "kdf", "key_size", "offset", "priority", "size",
        "stripes",
    )  # fmt: skip

    def __init__(self, id: str, *, active: bool, kdf: Kdf, offset: int, size: int, key_size: int) -> None:
        self.id = id
        self.active = active
        self.kdf = kdf
        self.offset = offset
        self.size = size
        self.key_size = key_size
        self.area_key_size = key_size
        self.cipher = ""
        self.stripes = STRIPES
        self.af_hash = ""
        self.priority = 1


class Digest:
    """PBKDF2 of the volume key; ``slots``: ids of the keyslots that hold this key."""

    __slots__ = ("digest", "hash", "iterations", "salt", "slots")

    def __init__(self, hash_name: str, iterations: int, salt: bytes, digest: bytes, slots: frozenset[str]) -> None:
        self.hash = hash_name
        self.iterations = iterations
        self.salt = salt
        self.digest = digest
        self.slots = slots


class LuksHeader:
    """``payload_offset``: bytes to the data; ``size``: bytes of data, None for all that the file has;
    ``iv_start``: units of 512 bytes added to a sector's number."""

    __slots__ = (
        "cipher", "cipher_mode", "cipher_name", "digests", "hash", "iv_start", "key_size", "label", "payload_offset",
        "sector_size", "sequence", "size", "slots", "subsystem", "uuid", "version",
    )  # fmt: skip

    def __init__(self, version: int) -> None:
        self.version = version
        self.uuid = ""
        self.label = ""
        self.subsystem = ""
        self.sequence = 0
        self.cipher = ""
        self.cipher_name = ""
        self.cipher_mode = ""
        self.hash = ""
        self.key_size = 0
        self.payload_offset = 0
        self.size: int | None = None
        self.sector_size = SECTOR
        self.iv_start = 0
        self.slots: list[Keyslot] = []
        self.digests: list[Digest] = []


def read_header(file: Node) -> LuksHeader:
    """The header in ``file``. Raises ForeignError when it is none, FormatError, FeatureError, CorruptError."""
    head = _read(file, _SIZE)
    if head[:6] == MAGIC and head[6:8] == b"\0\1":
        return _version1(head, file.filename)
    if head[:6] == MAGIC and head[6:8] != b"\0\2":
        number = int.from_bytes(head[6:8], "big")
        raise FeatureError(
            f"LUKS version {number} is not supported", path=file.filename, layer="luks header", field="version",
            offset=6, value=number, limit="1, 2",
        )  # fmt: skip
    from .header2 import find_version2

    found = find_version2(file)
    if found is None:
        raise ForeignError("Volume is not in LUKS format", path=file.filename, layer="luks header", offset=0)
    return found


def _read(file: Node, length: int) -> bytes:
    inside = min(length, file.size)
    return file.read(0, inside) + bytes(length - inside)


def _text(raw: bytes, what: str, path: str, offset: int) -> str:
    end = raw.find(b"\0")
    if end < 0:
        raise FormatError(
            f"LUKS header {what} is not NUL terminated", path=path, layer="luks header", field=what, offset=offset
        )
    return raw[:end].decode("ascii", "replace")


def _version1(head: bytes, path: str) -> LuksHeader:
    fields = _HEAD.unpack_from(head)
    _, _, name, mode, hash_name, payload, key_size, digest, salt, iterations, uuid = fields
    header = LuksHeader(1)
    header.cipher_name = _text(name, "cipher name", path, 8)
    header.cipher_mode = _text(mode, "cipher mode", path, 40)
    header.hash = _text(hash_name, "hash spec", path, 72)
    header.cipher = f"{header.cipher_name}-{header.cipher_mode}"
    header.uuid = uuid.split(b"\0", 1)[0].decode("ascii", "replace")
    header.key_size = key_size
    header.payload_offset = payload * SECTOR

    def bad(message: str, field: str, offset: int, value: object, limit: object = None) -> CorruptError:
        return CorruptError(
            message, path=path, layer="luks header", field=field, offset=offset, value=value, limit=limit
        )

    if not 0 < key_size <= MAX_KEY:
        raise bad(f"LUKS key of {key_size} bytes is refused", "key-bytes", 108, key_size, f"1 to {MAX_KEY}")
    if not iterations:
        raise bad("LUKS key iteration count is zero", "mk-digest-iter", 164, 0)
    if not payload:
        raise FeatureError(
            "LUKS header without data: detached headers are not supported", path=path, layer="luks header",
            field="payload-offset", offset=104, value=0,
        )  # fmt: skip
    if header.payload_offset < _SIZE:
        raise bad("LUKS payload is overlapping with the header", "payload-offset", 104, payload)
    area = (key_size * STRIPES + SECTOR - 1) // SECTOR * SECTOR
    for index in range(_SLOTS):
        place = _HEAD.size + index * _SLOT.size
        state, rounds, slot_salt, start, stripes = _SLOT.unpack_from(head, place)
        offset = start * SECTOR
        if stripes != STRIPES:
            raise bad(f"Keyslot {index} is corrupted (stripes {stripes} != 4000)", "stripes", place + 44, stripes)
        if offset < _SIZE:
            raise bad(f"Keyslot {index} is overlapping with the LUKS header", "key-material-offset", place + 40, start)
        if state not in (_ACTIVE, _DISABLED):
            raise bad(f"Keyslot {index} state (active/disable) is corrupted", "active", place, state)
        if state == _ACTIVE and not rounds:
            raise bad(f"Keyslot {index} iteration count is zero", "iterations", place + 4, 0)
        if offset + area > header.payload_offset:
            raise bad(
                f"Keyslot {index} is overlapping with the encrypted payload", "key-material-offset", place + 40, start
            )
        slot = Keyslot(
            str(index),
            active=state == _ACTIVE,
            kdf=Kdf("pbkdf2", slot_salt, rounds, header.hash),
            offset=offset,
            size=area,
            key_size=key_size,
        )
        slot.cipher = header.cipher
        slot.af_hash = header.hash
        for other in header.slots:
            if other.offset < offset + area and offset < other.offset + other.size:
                raise bad(
                    f"Keyslots {other.id} and {index} are overlapping in the header", "key-material-offset",
                    place + 40, start,
                )  # fmt: skip
        header.slots.append(slot)
    names = frozenset(slot.id for slot in header.slots)
    header.digests.append(Digest(header.hash, iterations, salt, digest, names))
    return header
