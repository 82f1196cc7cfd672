"""The header of LUKS version 2: two copies of a binary header and a JSON area (LUKS2 On-Disk Format 1.1.1)."""

from __future__ import annotations

import binascii
import hashlib
import json
import struct
from itertools import pairwise

from ....errors import CorruptError, FeatureError, FormatError
from .header import MAGIC, MAGIC_SECOND, MAX_KEY, MAX_STRIPES, SECTOR, Digest, Kdf, Keyslot, LuksHeader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ...node import Node

_HEAD = struct.Struct(">6sHQQ48s32s64s40s48sQ184s64s")
_BINARY = 4096
#: the sizes of a header with its JSON area that the specification has; the second copy stands right behind the first
SIZES = tuple(0x4000 << shift for shift in range(9))
_CHECKSUM = 0x1C0
MAX_KEYSLOTS_SIZE = 128 << 20
MAX_ITEMS = 64


class _Copy:
    __slots__ = ("head", "json", "size")

    def __init__(self, head: tuple[Any, ...], text: bytes) -> None:
        self.head = head
        self.size: int = head[2]
        self.json = text

    @property
    def sequence(self) -> int:
        return int(self.head[3])


def find_version2(file: Node) -> LuksHeader | None:
    """The newer of the copies that are whole; None when there is no sign of a header.

    Raises CorruptError when there is one, but none that is whole; FeatureError for what its volume needs.
    """
    seen = False
    reason = ""
    best: _Copy | None = None
    places = [0]
    head = _head(file, 0)
    if head is not None and head[2] in SIZES:
        places.append(head[2])
    else:
        places.extend(SIZES)
    for place in places:
        head = _head(file, place)
        if head is None or head[0] != (MAGIC_SECOND if place else MAGIC) or head[1] != 2:
            continue
        seen = True
        found = _copy(file, place, head)
        if isinstance(found, str):
            reason = reason or found
        elif best is None or found.sequence > best.sequence:
            best = found
    if best is None:
        if not seen:
            return None
        raise CorruptError(
            f"LUKS2 header is damaged: {reason}", path=file.filename, layer="luks2 header", field="csum",
            hint="cryptsetup repair may help; keep a copy of the volume first",
        )  # fmt: skip
    return _Reader(best, file.filename).header(file)


def _head(file: Node, place: int) -> tuple[Any, ...] | None:
    if place + _BINARY > file.size:
        return None
    raw = file.read(place, _HEAD.size)
    return _HEAD.unpack(raw) if raw[:6] in (MAGIC, MAGIC_SECOND) else None


def _copy(file: Node, place: int, head: tuple[Any, ...]) -> _Copy | str:
    """One copy whole, or what is wrong with it."""
    size = head[2]
    if size not in SIZES:
        return f"size {size}"
    if head[9] != place:
        return f"copy at {place} says it stands at {head[9]}"
    if place + size > file.size:
        return "cut short"
    name = head[5].split(b"\0", 1)[0].decode("ascii", "replace")
    try:
        hasher = hashlib.new(name)
    except ValueError:
        return f"checksum algorithm '{name}' is unknown"
    data = bytearray(file.read(place, size))
    stored = bytes(data[_CHECKSUM : _CHECKSUM + 64])
    data[_CHECKSUM : _CHECKSUM + 64] = bytes(64)
    hasher.update(data)
    made = hasher.digest() if hasher.digest_size else b""
    if not made or made != stored[: len(made)]:
        return f"checksum of the copy at {place} does not match"
    return _Copy(head, bytes(data[_BINARY:]))


class _Reader:
    """The JSON area, each value checked before it is used."""

    def __init__(self, copy: _Copy, path: str) -> None:
        self.copy = copy
        self.path = path

    def bad(self, what: str, field: str | None = None, value: object = None) -> CorruptError:
        return CorruptError(
            f"LUKS2 metadata is not valid: {what}", path=self.path, layer="luks2 metadata", field=field, value=value
        )

    def member(self, table: Any, key: str, kind: type) -> Any:
        value = table.get(key) if isinstance(table, dict) else None
        if not isinstance(value, kind) or isinstance(value, bool):
            raise self.bad(f"'{key}' is missing or of another kind", key)
        return value

    def number(self, table: Any, key: str, most: int = 1 << 32) -> int:
        value: int = self.member(table, key, int)
        if not 0 <= value <= most:
            raise self.bad(f"'{key}' is out of range", key, value)
        return value

    def text64(self, table: Any, key: str) -> int:
        """A 64-bit number, which JSON has as text."""
        text: str = self.member(table, key, str)
        if not (text.isascii() and text.isdigit() and len(text) <= 20) or int(text) >> 63:
            raise self.bad(f"'{key}' is no number", key, text[:40])
        return int(text)

    def data(self, table: Any, key: str) -> bytes:
        try:
            return binascii.a2b_base64(self.member(table, key, str), strict_mode=True)
        except (ValueError, binascii.Error):
            raise self.bad(f"'{key}' is not base64", key) from None

    def items(self, table: Any, key: str) -> dict[str, Any]:
        found: dict[str, Any] = self.member(table, key, dict)
        if len(found) > MAX_ITEMS:
            raise self.bad(f"{len(found)} {key}", key)
        if not all(isinstance(value, dict) and name.isdigit() and len(name) < 4 for name, value in found.items()):
            raise self.bad(f"'{key}' has what is no item", key)
        return found

    def header(self, file: Node) -> LuksHeader:
        head = self.copy.head
        try:
            top = json.loads(self.copy.json.split(b"\0", 1)[0].decode("utf-8"))
        except (ValueError, RecursionError):
            raise self.bad("no JSON") from None
        header = LuksHeader(2)
        header.sequence = self.copy.sequence
        header.label, header.uuid, header.subsystem = (
            head[at].split(b"\0", 1)[0].decode("utf-8", "replace") for at in (4, 7, 8)
        )
        config = self.member(top, "config", dict)
        if self.text64(config, "json_size") + _BINARY != self.copy.size:
            raise self.bad("'json_size' does not match the header", "json_size")
        self._requirements(config)
        room = self.text64(config, "keyslots_size")
        if room > MAX_KEYSLOTS_SIZE:
            raise self.bad("the keyslots area is too large", "keyslots_size", room)
        number = self._segment(header, top)
        first, last = 2 * self.copy.size, 2 * self.copy.size + room
        if header.payload_offset < last and (header.payload_offset or room):
            if not header.payload_offset:
                raise FeatureError(
                    "LUKS header without data: detached headers are not supported", path=self.path,
                    layer="luks2 metadata", field="offset", value=0,
                )  # fmt: skip
            raise self.bad("the data overlaps with the keyslots area", "offset", header.payload_offset)
        self._keyslots(header, top, first, last)
        self._digests(header, top, number)
        return header

    def _requirements(self, config: dict[str, Any]) -> None:
        asked = config.get("requirements")
        if asked is None:
            return
        for name in self.member(asked, "mandatory", list) if "mandatory" in asked else ():
            text = str(name)[:60]
            hint = "let cryptsetup finish the reencryption first" if "reencrypt" in text else None
            raise FeatureError(
                f"LUKS2 volume needs '{text}', which is not supported", path=self.path, layer="luks2 metadata",
                field="requirements", value=text, hint=hint,
            )  # fmt: skip

    def _segment(self, header: LuksHeader, top: Any) -> str:
        segments = {
            name: value
            for name, value in self.items(top, "segments").items()
            if not any(str(flag).startswith("backup-") for flag in value.get("flags") or ())
        }
        if len(segments) != 1:
            raise FeatureError(
                f"LUKS2 volume of {len(segments)} segments is not supported", path=self.path, field="segments"
            )
        name, segment = next(iter(segments.items()))
        kind = self.member(segment, "type", str)
        if kind != "crypt":
            raise FeatureError(f"LUKS2 segment type '{kind[:60]}' is not supported", path=self.path, field="type")
        if "integrity" in segment:
            inside = segment["integrity"]
            what = str(inside.get("type", "") if isinstance(inside, dict) else inside)[:60]
            raise FeatureError(
                f"LUKS2 volume with dm-integrity ('{what}') is not supported", path=self.path, field="integrity"
            )
        header.sector_size = self.number(segment, "sector_size")
        if header.sector_size not in (512, 1024, 2048, 4096):
            raise self.bad("a sector of no valid size", "sector_size", header.sector_size)
        header.payload_offset = self.text64(segment, "offset")
        header.iv_start = self.text64(segment, "iv_tweak")
        if header.payload_offset % SECTOR:
            raise self.bad("the data is not at a sector", "offset", header.payload_offset)
        if segment.get("size") != "dynamic":
            header.size = self.text64(segment, "size")
            if header.size % header.sector_size or header.payload_offset + header.size >> 63:
                raise self.bad("the data's size", "size", header.size)
        header.cipher = self.member(segment, "encryption", str)
        header.cipher_name, _, header.cipher_mode = header.cipher.partition("-")
        return name

    def _keyslots(self, header: LuksHeader, top: Any, first: int, last: int) -> None:
        areas: list[tuple[int, int, str]] = []
        for name, item in self.items(top, "keyslots").items():
            kind = self.member(item, "type", str)
            if kind == "reencrypt":
                raise FeatureError(
                    "LUKS2 volume is being reencrypted", path=self.path, field="keyslots",
                    hint="let cryptsetup finish the reencryption first",
                )  # fmt: skip
            area = self.member(item, "area", dict)
            offset, size = self.text64(area, "offset"), self.text64(area, "size")
            if offset < first or offset + size > last:
                raise self.bad(f"the area of keyslot {name} lies outside of the keyslots area", "area", offset)
            areas.append((offset, size, name))
            if kind != "luks2":
                continue  # of somebody else's, who may open it
            header.slots.append(self._slot(name, item, area, offset, size))
        areas.sort()
        for one, other in pairwise(areas):
            if one[0] + one[1] > other[0]:
                raise self.bad(f"the areas of keyslots {one[2]} and {other[2]} overlap", "area", other[0])
        header.slots.sort(key=lambda slot: (-slot.priority, int(slot.id)))

    def _slot(self, name: str, item: Any, area: Any, offset: int, size: int) -> Keyslot:
        if self.member(area, "type", str) != "raw":
            raise FeatureError(f"LUKS2 keyslot area '{str(area['type'])[:60]}' is not supported", path=self.path)
        kdf = self.member(item, "kdf", dict)
        kind = self.member(kdf, "type", str)
        salt = self.data(kdf, "salt")
        if kind == "pbkdf2":
            made = Kdf(kind, salt, self.number(kdf, "iterations"), self.member(kdf, "hash", str))
        elif kind in ("argon2i", "argon2id"):
            made = Kdf(kind, salt, self.number(kdf, "time"), "", self.number(kdf, "memory"), self.number(kdf, "cpus"))
        else:
            made = Kdf(kind, salt, 0)
        slot = Keyslot(
            name, active=True, kdf=made, offset=offset, size=size, key_size=self.number(item, "key_size", MAX_KEY)
        )
        slot.cipher = self.member(area, "encryption", str)
        slot.area_key_size = self.number(area, "key_size", MAX_KEY)
        split = self.member(item, "af", dict)
        if self.member(split, "type", str) != "luks1":
            raise FeatureError(f"LUKS2 splitter '{str(split['type'])[:60]}' is not supported", path=self.path)
        slot.stripes = self.number(split, "stripes", MAX_STRIPES)
        slot.af_hash = self.member(split, "hash", str)
        if item.get("priority") is not None:
            slot.priority = self.number(item, "priority", 2)
        slot.active = slot.priority > 0
        if not slot.key_size or not slot.stripes or slot.key_size * slot.stripes > size:
            raise self.bad(f"keyslot {name} does not fit its area", "area", size)
        return slot

    def _digests(self, header: LuksHeader, top: Any, segment: str) -> None:
        for item in self.items(top, "digests").values():
            if segment not in self.member(item, "segments", list):
                continue
            if self.member(item, "type", str) != "pbkdf2":
                raise FeatureError(f"LUKS2 digest '{str(item['type'])[:60]}' is not supported", path=self.path)
            digest = self.data(item, "digest")
            if not 16 <= len(digest) <= 64:
                raise self.bad("a digest of no valid length", "digest", len(digest))
            names = frozenset(str(name) for name in self.member(item, "keyslots", list))
            header.digests.append(
                Digest(
                    self.member(item, "hash", str),
                    self.number(item, "iterations"),
                    self.data(item, "salt"),
                    digest,
                    names,
                )
            )
        if not header.digests:
            raise FormatError("LUKS2 volume has no digest of its key", path=self.path, field="digests")
        # the key that a slot of the segment holds
        for slot in header.slots:
            if any(slot.id in digest.slots for digest in header.digests):
                header.key_size = slot.key_size
                break
