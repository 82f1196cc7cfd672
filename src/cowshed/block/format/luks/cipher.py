"""Sector ciphers as dm-crypt has them: AES with XTS, CBC or ECB, and the ways in which a sector's number becomes an IV.

Specification: LUKS1 On-Disk Format 1.2.3 (names), LUKS2 On-Disk Format 1.1.1 "Segments", IEEE 1619 (XTS). The number
that an IV is made of counts units of 512 bytes from the area's start, whatever the size of the sectors.
"""

from __future__ import annotations

import sys
from hashlib import new as new_hash

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from ....arrays import load_numpy
from .spec import Spec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from cryptography.hazmat.primitives.ciphers import CipherContext

UNIT = 512

#: bytes at a time: two buffers of it fit into a second level cache
_BATCH = 512 << 10
#: bytes deciphered one sector at a time before numpy is worth its import
_SMALL = 4 << 20


def sector_cipher(spec: Spec, key: bytes, sector_size: int = UNIT) -> SectorCipher:
    """The cipher of an area. Raises FeatureError for a key of another size."""
    spec.check_key(len(key))
    return {"xts": _Xts, "cbc": _Cbc, "ecb": _Ecb}[spec.mode](spec, key, sector_size)


class SectorCipher:
    """Whole sectors of ``sector_size`` bytes, the first of them ``number`` units of 512 bytes into the area.

    Safe to use from several threads: nothing is kept between calls but keys.
    """

    def __init__(self, spec: Spec, key: bytes, sector_size: int) -> None:
        self.sector_size = sector_size
        self.step = sector_size // UNIT
        self._iv_of = _iv_maker(spec.iv)
        self._iv_key = _essiv_key(spec.iv_hash, key) if spec.iv == "essiv" else None

    def ivs(self, number: int, count: int) -> bytes:
        """The IVs of ``count`` sectors, 16 bytes each."""
        make, step = self._iv_of, self.step
        plain = b"".join([make(at) for at in range(number, number + count * step, step)])
        if self._iv_key is None:
            return plain
        return Cipher(algorithms.AES(self._iv_key), modes.ECB()).encryptor().update(plain)

    def decrypt(self, number: int, view: memoryview) -> None:
        """Turn the sectors in ``view`` (writable) into clear text, in place."""
        raise NotImplementedError

    def encrypt(self, number: int, data: bytes | bytearray | memoryview) -> bytes | bytearray:
        raise NotImplementedError


def _iv_maker(iv: str) -> Callable[[int], bytes]:
    if iv == "plain":  # 32 bits that wrap
        return lambda number: (number & 0xFFFFFFFF).to_bytes(16, "little")
    if iv == "plain64be":
        return lambda number: number.to_bytes(16, "big")
    if iv == "null":
        return lambda number: bytes(16)
    return lambda number: number.to_bytes(16, "little")


def _essiv_key(name: str, key: bytes) -> bytes:
    return new_hash(name, key).digest()


class _Xts(SectorCipher):
    """XTS. Few sectors go through the library's own XTS, one context a sector; many through ECB with the tweaks of
    all of them made at once, which is an order of magnitude faster and needs numpy."""

    def __init__(self, spec: Spec, key: bytes, sector_size: int) -> None:
        super().__init__(spec, key, sector_size)
        half = len(key) // 2
        self._data_key = algorithms.AES(key[:half])
        self._tweak_key = algorithms.AES(key[half:])
        # the library refuses equal halves (FIPS) and keys of 192 bits, dm-crypt takes them
        self._whole = algorithms.AES(key) if half in (16, 32) and key[:half] != key[half:] else None
        self._small = 0

    def decrypt(self, number: int, view: memoryview) -> None:
        if self._one_by_one(len(view)):
            size = self.sector_size
            ivs = self.ivs(number, len(view) // size)
            assert self._whole is not None
            for index in range(len(view) // size):
                part = view[index * size : (index + 1) * size]
                part[:] = Cipher(self._whole, modes.XTS(ivs[index * 16 : index * 16 + 16])).decryptor().update(part)
            return
        for at in range(0, len(view), _BATCH):
            part = view[at : at + _BATCH]
            self._batch(number + at // UNIT, part, part, Cipher(self._data_key, modes.ECB()).decryptor())

    def encrypt(self, number: int, data: bytes | bytearray | memoryview) -> bytes | bytearray:
        view = memoryview(data)
        if self._one_by_one(len(view)):
            size = self.sector_size
            ivs = self.ivs(number, len(view) // size)
            assert self._whole is not None
            return b"".join(
                Cipher(self._whole, modes.XTS(ivs[index * 16 : index * 16 + 16]))
                .encryptor()
                .update(view[index * size : (index + 1) * size])
                for index in range(len(view) // size)
            )
        result = bytearray(len(view))
        for at in range(0, len(view), _BATCH):
            target = memoryview(result)[at : at + _BATCH]
            self._batch(
                number + at // UNIT, view[at : at + _BATCH], target, Cipher(self._data_key, modes.ECB()).encryptor()
            )
        return result

    def _one_by_one(self, length: int) -> bool:
        if self._whole is None:
            return False
        if length <= 4096 or (self._small < _SMALL and "numpy" not in sys.modules):
            self._small += length
            return True
        return False

    def _batch(self, number: int, source: memoryview, target: memoryview, cipher: CipherContext) -> None:
        """P = D(C ^ T) ^ T over whole sectors (or the same with E), T multiplied by x from block to block."""
        load_numpy()
        import numpy as np

        count, blocks = len(source) // self.sector_size, self.sector_size // 16
        tweaks: Any = np.empty((count, blocks, 2), dtype="<u8")
        first = Cipher(self._tweak_key, modes.ECB()).encryptor().update(self.ivs(number, count))
        tweaks[:, 0] = np.frombuffer(first, dtype="<u8").reshape(count, 2)
        have = 1
        while have < blocks:
            # all that are there times x^step are the next ones
            step = min(have, 32, blocks - have)
            low, high = tweaks[:, have - step : have, 0], tweaks[:, have - step : have, 1]
            up = np.uint64(step)
            rest = np.uint64(64 - step)
            over = high >> rest  # what leaves at the top comes back: x^128 = x^7 + x^2 + x + 1
            tweaks[:, have : have + step, 1] = (high << up) | (low >> rest)
            tweaks[:, have : have + step, 0] = (
                (low << up) ^ over ^ (over << np.uint64(1)) ^ (over << np.uint64(2)) ^ (over << np.uint64(7))
            )
            have += step
        mask = tweaks.reshape(-1)
        mixed = np.frombuffer(source, dtype="<u8") ^ mask
        worked = np.frombuffer(cipher.update(memoryview(mixed).cast("B")), dtype="<u8")
        np.bitwise_xor(worked, mask, out=np.frombuffer(target, dtype="<u8"))


class _Cbc(SectorCipher):
    """CBC, each sector a chain of its own."""

    def __init__(self, spec: Spec, key: bytes, sector_size: int) -> None:
        super().__init__(spec, key, sector_size)
        self._key = algorithms.AES(key)

    def decrypt(self, number: int, view: memoryview) -> None:
        # P = D(C) ^ the block before it, which is the IV for a sector's first: all of it at once
        size = self.sector_size
        for at in range(0, len(view), _BATCH):
            part = view[at : at + _BATCH]
            count = len(part) // size
            ivs = self.ivs(number + at // UNIT, count)
            before = bytearray(16 + len(part))
            before[16:] = part
            for index in range(count):
                before[index * size : index * size + 16] = ivs[index * 16 : index * 16 + 16]
            clear = Cipher(self._key, modes.ECB()).decryptor().update(part)
            part[:] = _xor(clear, memoryview(before)[: len(part)])

    def encrypt(self, number: int, data: bytes | bytearray | memoryview) -> bytes | bytearray:
        # one context chains through all sectors: what it adds from the sector before is taken out again
        view = memoryview(data)
        size = self.sector_size
        count = len(view) // size
        ivs = self.ivs(number, count)
        context = Cipher(self._key, modes.CBC(bytes(16))).encryptor()
        chain = bytes(16)
        parts: list[bytes] = []
        for index in range(count):
            at = index * size
            start = (
                int.from_bytes(view[at : at + 16], "little")
                ^ int.from_bytes(chain, "little")
                ^ int.from_bytes(ivs[index * 16 : index * 16 + 16], "little")
            )
            sector = context.update(start.to_bytes(16, "little") + bytes(view[at + 16 : at + size]))
            chain = sector[-16:]
            parts.append(sector)
        return b"".join(parts)


class _Ecb(SectorCipher):
    """ECB: a block's place does not matter."""

    def __init__(self, spec: Spec, key: bytes, sector_size: int) -> None:
        super().__init__(spec, key, sector_size)
        self._key = algorithms.AES(key)

    def decrypt(self, number: int, view: memoryview) -> None:
        for at in range(0, len(view), _BATCH):
            part = view[at : at + _BATCH]
            part[:] = Cipher(self._key, modes.ECB()).decryptor().update(part)

    def encrypt(self, number: int, data: bytes | bytearray | memoryview) -> bytes | bytearray:
        return Cipher(self._key, modes.ECB()).encryptor().update(data)


def _xor(one: bytes, other: memoryview) -> bytes:
    if "numpy" in sys.modules or len(one) >= 1 << 20:
        load_numpy()
        import numpy as np

        return bytes(np.frombuffer(one, dtype="<u8") ^ np.frombuffer(other, dtype="<u8"))
    return (int.from_bytes(one, "little") ^ int.from_bytes(other, "little")).to_bytes(len(one), "little")
