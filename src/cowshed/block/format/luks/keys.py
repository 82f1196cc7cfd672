"""From a passphrase to a volume key: key derivation, the anti-forensic merge, digests (LUKS1 1.2.3 sections 2 and 3;
LUKS2 1.1.1 "Keyslots", "Digests").

What an image asks for is bounded: it may come from anyone, and the work is done before a key is known to fit.
"""

from __future__ import annotations

import hashlib
import os
from _operator import _compare_digest

from ....errors import CowshedError, FeatureError, FormatError, UnsupportedError
from .spec import Spec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ...node import Node
    from .header import Digest, Kdf, Keyslot, LuksHeader

#: iterations of PBKDF2, for one key: a minute or two
MAX_ITERATIONS = 200_000_000
#: KiB of memory that Argon2 may take, and passes over it
MAX_MEMORY = 4 << 20
MAX_PASSES = 1000
#: KiB passed over, for one key: a minute or two
MAX_ARGON_WORK = 64 << 20
#: keys derived, each counted as the part of the bounds above that it takes: no volume makes many dear ones
MAX_WORK = 2.0
MAX_LANES = 64
MAX_PASSPHRASE = 8 << 20


def pbkdf2(hash_name: str, word: bytes, salt: bytes, iterations: int, length: int, path: str) -> bytes:
    """PBKDF2 (RFC 8018) with HMAC of ``hash_name``. Raises FeatureError, FormatError."""
    check_hash(hash_name, path)
    if not 0 < iterations <= MAX_ITERATIONS:
        raise FormatError(
            f"LUKS key derivation of {iterations} iterations is refused", path=path, field="iterations",
            value=iterations, limit=f"1 to {MAX_ITERATIONS}",
        )  # fmt: skip
    return hashlib.pbkdf2_hmac(hash_name, word, salt, iterations, length)


def check_hash(name: str, path: str) -> None:
    """FeatureError when there is no such hash here."""
    try:
        if not hashlib.new(name).digest_size:  # SHAKE has any length
            raise ValueError
    except (ValueError, TypeError):  # TypeError: JSON can name one that no encoding has
        raise FeatureError(f"Hash algorithm '{name}' not supported", path=path, field="hash-spec", value=name) from None


def _argon2(kdf: Kdf, word: bytes, length: int, path: str) -> bytes:
    for field, value, least, most in (
        ("time", kdf.iterations, 1, MAX_PASSES),
        ("memory", kdf.memory, 8, MAX_MEMORY),
        ("cpus", kdf.cpus, 1, MAX_LANES),
        ("time × memory", kdf.iterations * kdf.memory, 1, MAX_ARGON_WORK),
    ):
        if not least <= value <= most:
            raise FormatError(
                f"LUKS key derivation {kdf.kind} with {field} {value} is refused", path=path, field=field, value=value,
                limit=f"{least} to {most}",
            )  # fmt: skip
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 10
    if kdf.memory > there:
        raise CowshedError(
            f"LUKS key derivation needs {kdf.memory} KiB of memory, this machine has {there}", path=path, errno=12
        )
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.kdf import argon2

    maker = getattr(argon2, {"argon2id": "Argon2id", "argon2i": "Argon2i"}[kdf.kind], None)
    try:
        if maker is None:
            raise UnsupportedAlgorithm("")
        return bytes(
            maker(
                salt=kdf.salt, length=length, iterations=kdf.iterations, lanes=kdf.cpus, memory_cost=kdf.memory
            ).derive(word)
        )
    except UnsupportedAlgorithm:
        raise UnsupportedError(
            f"Key derivation {kdf.kind} is not in this build of the cryptography library", path=path
        ) from None
    except ValueError as error:
        raise FormatError(f"LUKS key derivation {kdf.kind} is refused: {error}", path=path) from error
    except MemoryError:
        raise CowshedError(f"LUKS key derivation needs {kdf.memory} KiB of memory", path=path, errno=12) from None


def derive(kdf: Kdf, word: bytes, length: int, path: str) -> bytes:
    """The key that opens a keyslot's area."""
    if kdf.kind == "pbkdf2":
        return pbkdf2(kdf.hash, word, kdf.salt, kdf.iterations, length, path)
    if kdf.kind in ("argon2i", "argon2id"):
        return _argon2(kdf, word, length, path)
    raise FeatureError(f"Key derivation '{kdf.kind}' is not supported", path=path, field="kdf", value=kdf.kind)


def merge(material: bytes, length: int, stripes: int, hash_name: str) -> bytes:
    """Anti-forensic merge: the ``length`` bytes that were split over ``stripes``."""
    mixed = 0
    for index in range(stripes - 1):
        mixed ^= int.from_bytes(material[index * length : (index + 1) * length], "little")
        mixed = int.from_bytes(_diffuse(mixed.to_bytes(length, "little"), hash_name), "little")
    mixed ^= int.from_bytes(material[(stripes - 1) * length : stripes * length], "little")
    return mixed.to_bytes(length, "little")


def _diffuse(block: bytes, hash_name: str) -> bytes:
    size = hashlib.new(hash_name).digest_size
    parts = []
    for index, at in enumerate(range(0, len(block), size)):
        piece = block[at : at + size]
        parts.append(hashlib.new(hash_name, index.to_bytes(4, "big") + piece).digest()[: len(piece)])
    return b"".join(parts)


def fits(digest: Digest, key: bytes, path: str) -> bool:
    """Is ``key`` the one that the digest was made of?"""
    made = pbkdf2(digest.hash, key, digest.salt, digest.iterations, len(digest.digest), path)
    return _compare_digest(made, digest.digest)


def slot_key(slot: Keyslot, file: Node, word: bytes, path: str) -> bytes:
    """What ``word`` makes of a keyslot: a volume key if it is the right one."""
    from .cipher import sector_cipher

    spec = Spec.parse(slot.cipher, path)
    spec.check_key(slot.area_key_size, path)
    check_hash(slot.af_hash, path)
    key = derive(slot.kdf, word, slot.area_key_size, path)
    length = slot.key_size * slot.stripes
    padded = (length + 511) // 512 * 512
    material = bytearray(padded)
    inside = max(0, min(padded, file.size - slot.offset))
    if inside:
        file.read_into(slot.offset, memoryview(material)[:inside])
    sector_cipher(spec, key).decrypt(0, memoryview(material))
    return merge(bytes(material), slot.key_size, slot.stripes, slot.af_hash)


def volume_key(header: LuksHeader, file: Node, words: Iterable[bytes], path: str) -> bytes:
    """The volume key, by the first of ``words`` that opens a keyslot.

    Raises OpenError-like CowshedError (EPERM) ``Invalid password, cannot unlock any keyslot``, and FeatureError when
    no keyslot could be tried at all.
    """
    refused: FormatError | None = None
    tried = False
    work = 0.0
    for word in words:
        for slot in header.slots:
            if not slot.active:
                continue
            try:
                if len(word) > MAX_PASSPHRASE:
                    raise FormatError("A passphrase has at most 8 MiB", path=path)
                kdf = slot.kdf
                work += kdf.iterations * (kdf.memory / MAX_ARGON_WORK or 1 / MAX_ITERATIONS)
                if work > MAX_WORK and tried:
                    raise CowshedError(
                        "The keyslots of this volume are too costly to try all", path=path, layer="luks", errno=1,
                        hint="a passphrase for one of the first keyslots opens it",
                    )  # fmt: skip
                key = slot_key(slot, file, word, path)
                for digest in header.digests:
                    if slot.id in digest.slots and fits(digest, key, path):
                        return key
                tried = True
            except FormatError as error:
                refused = refused or error  # the next slot may be of a kind that is known
    if refused is not None and not tried:
        raise refused
    raise CowshedError("Invalid password, cannot unlock any keyslot", path=path, layer="luks", errno=1)
