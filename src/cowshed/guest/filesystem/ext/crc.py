"""The checksums of ext file systems: CRC-32C (Castagnoli) for metadata_csum and jbd2, CRC-16 for gdt_csum.

In Python and without a library: only metadata is summed (inodes, directory blocks, bitmaps, what goes through the
journal), a few megabytes even for big jobs. Four bytes a step through two tables of 64 Ki make that about 50 MB/s;
the tables are made when the first 64 KiB have been summed, before that four small ones serve.
"""

from __future__ import annotations

import sys
from array import array

_POLYNOMIAL = 0x82F63B78  # reflected


def _small_tables() -> list[list[int]]:
    first = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value >> 1 ^ _POLYNOMIAL if value & 1 else value >> 1
        first.append(value)
    tables = [first]
    for _ in range(3):
        tables.append([value >> 8 ^ first[value & 255] for value in tables[-1]])
    return tables


_T0, _T1, _T2, _T3 = _small_tables()
_low: list[int] = []
_high: list[int] = []
_summed = 0


def _words(data: bytes | bytearray | memoryview) -> array[int]:
    words = array("I")
    words.frombytes(data)
    if sys.byteorder == "big":
        words.byteswap()
    return words


def crc32c(crc: int, data: bytes | bytearray | memoryview) -> int:
    """CRC-32C of ``data`` going on from ``crc``, without the inversions at begin and end (as ext4 stores it)."""
    global _summed, _low, _high
    length = len(data)
    whole = length & ~3
    if whole:
        words = _words(data[:whole])
        if _summed < 65536:
            _summed += length
            t0, t1, t2, t3 = _T0, _T1, _T2, _T3
            for word in words:
                word ^= crc
                crc = t3[word & 255] ^ t2[word >> 8 & 255] ^ t1[word >> 16 & 255] ^ t0[word >> 24]
        else:
            if not _low:
                _low = [a ^ b for b in _T2 for a in _T3]
                _high = [a ^ b for b in _T0 for a in _T1]
            low, high = _low, _high
            for word in words:
                word ^= crc
                crc = low[word & 0xFFFF] ^ high[word >> 16]
    if whole != length:
        for byte in bytes(data[whole:]):
            crc = crc >> 8 ^ _T0[(crc ^ byte) & 255]
    return crc


def patch(data: bytes | bytearray, at: int, wanted: int) -> bytes:
    """Four bytes that, put at offset ``at`` of ``data``, give all of it the CRC-32C ``wanted`` (begun with ones)."""
    top = {value >> 24: index for index, value in enumerate(_T0)}

    def back(crc: int, part: bytes) -> int:
        for byte in reversed(part):
            index = top[crc >> 24]
            crc = ((crc ^ _T0[index]) << 8 | index ^ byte) & 0xFFFFFFFF
        return crc

    after = back(wanted, bytes(data[at + 4 :]))
    return (crc32c(0xFFFFFFFF, data[:at]) ^ back(after, bytes(4))).to_bytes(4, "little")


def crc16(crc: int, data: bytes | bytearray | memoryview) -> int:
    """CRC-16 (polynomial 0x8005, reflected), as group descriptors have it with uninit_bg."""
    for byte in bytes(data):
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ 0xA001 if crc & 1 else crc >> 1
    return crc
