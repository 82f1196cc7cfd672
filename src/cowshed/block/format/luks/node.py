"""The ``luks`` driver: the clear text of a LUKS volume (version 1 and 2) as a Node, read and written in place."""

from __future__ import annotations

from ....errors import CorruptError, OptionError, UnsupportedError
from ....progress import QUIET
from ...node import ENCRYPTED, Extent, Node, byte_view
from .header import SECTOR, LuksHeader, read_header

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from ....progress import Progress
    from ...node import Buffer
    from .cipher import SectorCipher

#: bytes enciphered at a time
_CHUNK = 1 << 20


def open_luks(file: Node, options: dict[str, Any], context: Any) -> Node:
    """Open the volume in ``file`` with the secret that the option key-secret names (none with ``no_io``).

    Raises FormatError and its kinds, OptionError without a key, CowshedError (EPERM) for one that opens no keyslot.
    """
    header = read_header(file)
    node = LuksNode(file, header, read_only=not context.writable)
    if not context.no_io:
        name = options.get("key-secret")
        if not name:
            raise OptionError(
                "Parameter 'key-secret' is required for cipher", path=file.filename, layer="luks", field="key-secret"
            )
        node.unlock([context.secret(name)])
    else:
        node.check_names(facts=True)
    return node


def open_volume(file: Node, words: Iterable[bytes], *, writable: bool = False) -> LuksNode:
    """The volume in ``file``, opened with the first of ``words`` (passphrases or key files' bytes) that fits.

    Raises ForeignError when there is none, FormatError and its kinds, CowshedError (EPERM) when no word fits.
    """
    node = LuksNode(file, read_header(file), read_only=not writable)
    node.unlock(words)
    return node


class LuksNode(Node):
    """The data of a LUKS volume. ``header``: its facts. Without `unlock` there are only these."""

    driver = "luks"
    is_format = True
    encrypted = True

    def __init__(self, file: Node, header: LuksHeader, *, read_only: bool) -> None:
        super().__init__(file.filename, read_only)
        self.children["file"] = file
        self.header = header
        self.cipher: SectorCipher | None = None
        self._measure()

    def _measure(self) -> None:
        header, there = self.header, self.file.size
        # a file's last, partial sector counts as whole
        room = (there + SECTOR - 1) // SECTOR * SECTOR - header.payload_offset
        if room < 0 or (header.size is not None and header.size > room):
            raise CorruptError(
                "Could not refresh total sector count: Input/output error",
                path=self.filename, layer="luks", field="payload-offset", value=header.payload_offset, limit=there,
                hint="the volume is cut short, or its header is detached from its data",
            )  # fmt: skip
        self.size = (room if header.size is None else header.size) // header.sector_size * header.sector_size

    def check_names(self, facts: bool = False) -> None:
        """FeatureError when the volume names a cipher or hash that nobody knows, or that is not here (unless only its
        facts are asked for)."""
        from .keys import check_hash
        from .spec import FOREIGN, Spec

        header, path = self.header, self.filename
        if facts and header.cipher_name in FOREIGN:
            return
        Spec(header.cipher_name, header.cipher_mode, path).check_key(header.key_size, path)
        if header.hash:
            check_hash(header.hash, path)

    def unlock(self, words: Iterable[bytes]) -> None:
        """Find the volume key with one of ``words``. Raises CowshedError (EPERM) when none fits, FeatureError."""
        from .cipher import sector_cipher
        from .keys import volume_key
        from .spec import Spec

        self.check_names()
        header = self.header
        key = volume_key(header, self.file, words, self.filename)
        spec = Spec(header.cipher_name, header.cipher_mode, self.filename)
        self.cipher = sector_cipher(spec, key, header.sector_size)

    def _unlocked(self) -> SectorCipher:
        if self.cipher is None:
            raise UnsupportedError("The volume is locked", path=self.filename, layer=self.driver)
        return self.cipher

    # -- reading --------------------------------------------------------------------------------------------------

    def layer_extents(self, offset: int, length: int) -> Iterator[Extent]:
        if length:
            yield Extent(offset, length, ENCRYPTED, self, offset, 0, self)

    def unpack(self, offset: int, view: memoryview) -> None:
        cipher = self._unlocked()
        size = self.header.sector_size
        head = offset % size
        end = offset + len(view)
        if not head and not end % size:
            self._load(cipher, offset, view)
            return
        start, stop = offset - head, -(-end // size) * size
        if stop - start <= _CHUNK:
            whole = memoryview(bytearray(stop - start))
            self._load(cipher, start, whole)
            view[:] = whole[head : head + len(view)]
            return
        # ragged edges of something large: the middle in place
        first = min(end, start + size) if head else offset
        last = max(first, end // size * size)
        if first > offset:
            self.unpack(offset, view[: first - offset])
        self._load(cipher, first, view[first - offset : last - offset])
        if last < end:
            self.unpack(last, view[last - offset :])

    def _load(self, cipher: SectorCipher, offset: int, view: memoryview) -> None:
        """Whole sectors, deciphered where they are read to."""
        place = self.header.payload_offset + offset
        inside = max(0, min(len(view), self.file.size - place))
        self.file.read_into(place, view[:inside])
        if inside < len(view):
            view[inside:] = bytes(len(view) - inside)
        cipher.decrypt(offset // SECTOR + self.header.iv_start, view)

    # -- writing --------------------------------------------------------------------------------------------------

    def write(self, offset: int, data: Buffer) -> None:
        view = byte_view(data)
        self._check_write(offset, len(view))
        if not len(view):
            return
        cipher = self._unlocked()
        size = self.header.sector_size
        with self.lock:
            at, end = offset, offset + len(view)
            while at < end:
                start = at // size * size
                stop = min(start + _CHUNK, -(-end // size) * size)
                inner = min(end, stop)
                part = view[at - offset : inner - offset]
                if at > start or inner < stop:
                    # what else is in the first and last sector stays
                    whole = bytearray(stop - start)
                    if at > start:
                        self._load(cipher, start, memoryview(whole)[:size])
                    if inner < stop and (stop - size > start or at == start):
                        self._load(cipher, stop - size, memoryview(whole)[-size:])
                    whole[at - start : inner - start] = part
                    sealed = cipher.encrypt(start // SECTOR + self.header.iv_start, whole)
                else:
                    sealed = cipher.encrypt(start // SECTOR + self.header.iv_start, part)
                self._store(start, sealed)
                at = inner

    def _store(self, offset: int, data: bytes | bytearray) -> None:
        """Whole sectors; the file's last one may be cut short."""
        place = self.header.payload_offset + offset
        file = self.file
        if place + len(data) > file.size and not file.extensible:
            file.resize(-(-file.size // SECTOR) * SECTOR)
        file.write(place, data)

    def flush(self) -> None:
        self.file.flush()

    def resize(self, size: int, preallocation: str = "off", progress: Progress = QUIET) -> None:
        if self.header.size is not None:
            raise self._cannot("The volume says its own size: it does not follow its file")
        self.file.resize(size + self.header.payload_offset, preallocation, progress)
        self._measure()

    # -- facts ----------------------------------------------------------------------------------------------------

    def format_specific(self) -> dict[str, Any]:
        header = self.header
        if header.version == 2:
            return {"type": "luks", "data": _facts2(header)}
        mode, _, iv = header.cipher_mode.partition("-")
        iv, _, iv_hash = iv.partition(":")
        per_key = header.key_size // 2 if mode == "xts" else header.key_size
        data: dict[str, Any] = {
            "cipher-alg": f"{header.cipher_name}-{per_key * 8}",
            "cipher-mode": mode,
            "ivgen-alg": iv,
            "hash-alg": header.hash,
            "payload-offset": header.payload_offset,
            "master-key-iters": header.digests[0].iterations,
            "uuid": header.uuid,
            "slots": [
                {"active": True, "iters": slot.kdf.iterations, "stripes": slot.stripes, "key-offset": slot.offset}
                if slot.active
                else {"active": False, "key-offset": slot.offset}
                for slot in header.slots
            ],
        }
        if iv_hash:
            data["ivgen-hash-alg"] = iv_hash
        return {"type": "luks", "data": data}


def _facts2(header: LuksHeader) -> dict[str, Any]:
    """Version 2 in the words of version 1 where they fit; no other tool has a form for it."""
    data: dict[str, Any] = {
        "version": 2,
        "uuid": header.uuid,
        "cipher-alg": header.cipher_name,
        "cipher-mode": header.cipher_mode,
        "key-bits": header.key_size * 8,
        "sector-size": header.sector_size,
        "payload-offset": header.payload_offset,
        "sequence-id": header.sequence,
        "slots": [],
    }
    if header.label:
        data["label"] = header.label
    if header.subsystem:
        data["subsystem"] = header.subsystem
    for slot in header.slots:
        kdf = slot.kdf
        facts: dict[str, Any] = {"slot": int(slot.id), "kdf": kdf.kind, "iters": kdf.iterations}
        if kdf.memory:
            facts["memory"] = kdf.memory << 10
            facts["threads"] = kdf.cpus
        if kdf.hash:
            facts["hash-alg"] = kdf.hash
        facts["stripes"] = slot.stripes
        facts["key-offset"] = slot.offset
        data["slots"].append(facts)
    return data
