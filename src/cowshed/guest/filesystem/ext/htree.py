"""Hashes of names in indexed directories (kernel documentation, 4.5.3 "Hash Tree Directories")."""

from __future__ import annotations

LEGACY, HALF_MD4, TEA, LEGACY_UNSIGNED, HALF_MD4_UNSIGNED, TEA_UNSIGNED, SIPHASH = range(7)

_MASK = 0xFFFFFFFF
_MD4 = (0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476)
_EOF = 0x7FFFFFFF << 1 & _MASK


def hash_name(name: bytes, version: int, seed: tuple[int, ...]) -> tuple[int, int]:
    """(major, minor) hash of a name; ``version`` with the signedness of the file system, ``seed`` four words."""
    signed = version < LEGACY_UNSIGNED
    if version in (LEGACY, LEGACY_UNSIGNED):
        major, minor = _legacy(name, signed), 0
    else:
        state = list(seed) if any(seed) else list(_MD4)
        if version in (HALF_MD4, HALF_MD4_UNSIGNED):
            for start in range(0, len(name), 32):
                _half_md4(state, _words(name[start:], len(name) - start, 8, signed))
            major, minor = state[1], state[2]
        elif version in (TEA, TEA_UNSIGNED):
            for start in range(0, len(name), 16):
                _tea(state, _words(name[start:], len(name) - start, 4, signed))
            major, minor = state[0], state[1]
        else:
            raise ValueError(f"hash version {version}")
    major &= ~1
    if major == _EOF:
        major = 0x7FFFFFFE << 1
    return major, minor


def _words(part: bytes, length: int, count: int, signed: bool) -> list[int]:
    """A piece of a name as words, filled up with its length."""
    pad = length | length << 8
    pad = (pad | pad << 16) & _MASK
    out = []
    size = min(length, count * 4)
    value = pad
    for index in range(size):
        byte = part[index]
        if signed and byte > 127:
            byte -= 256
        value = byte + (value << 8) & _MASK
        if index % 4 == 3:
            out.append(value)
            value = pad
    if len(out) < count:
        out.append(value)
    while len(out) < count:
        out.append(pad)
    return out


def _rotate(value: int, bits: int) -> int:
    value &= _MASK
    return (value << bits | value >> 32 - bits) & _MASK


def _half_md4(state: list[int], data: list[int]) -> None:
    a, b, c, d = state
    for x, s in ((0, 3), (1, 7), (2, 11), (3, 19), (4, 3), (5, 7), (6, 11), (7, 19)):
        a = _rotate(a + (d ^ b & (c ^ d)) + data[x], s)
        a, b, c, d = d, a, b, c
    for x, s in ((1, 3), (3, 5), (5, 9), (7, 13), (0, 3), (2, 5), (4, 9), (6, 13)):
        a = _rotate(a + ((b & c) + ((b ^ c) & d)) + data[x] + 0x5A827999, s)
        a, b, c, d = d, a, b, c
    for x, s in ((3, 3), (7, 9), (2, 11), (6, 15), (1, 3), (5, 9), (0, 11), (4, 15)):
        a = _rotate(a + (b ^ c ^ d) + data[x] + 0x6ED9EBA1, s)
        a, b, c, d = d, a, b, c
    state[:] = [old + new & _MASK for old, new in zip(state, (a, b, c, d), strict=True)]


def _tea(state: list[int], data: list[int]) -> None:
    x, y = state[0], state[1]
    a, b, c, d = data
    total = 0
    for _ in range(16):
        total = total + 0x9E3779B9 & _MASK
        x = x + ((y << 4) + a ^ y + total ^ (y >> 5) + b) & _MASK
        y = y + ((x << 4) + c ^ x + total ^ (x >> 5) + d) & _MASK
    state[0] = state[0] + x & _MASK
    state[1] = state[1] + y & _MASK


def _legacy(name: bytes, signed: bool) -> int:
    hash0, hash1 = 0x12A3FE2D, 0x37ABE8F9
    for byte in name:
        if signed and byte > 127:
            byte -= 256
        value = hash1 + (hash0 ^ byte * 7152373) & _MASK
        if value & 0x80000000:
            value = value - 0x7FFFFFFF & _MASK
        hash1, hash0 = hash0, value
    return hash0 << 1 & _MASK
