"""Hashes of names in indexed directories (kernel documentation, 4.5.3 "Hash Tree Directories")."""

from __future__ import annotations

import struct

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
    size = min(length, count * 4)
    if not signed or part[:size].isascii():
        whole = size >> 2
        out = list(struct.unpack_from(f">{whole}I", part))
        if whole < count:
            rest = part[whole * 4 : size]
            out.append((pad << 8 * len(rest) | int.from_bytes(rest, "big")) & _MASK)
            out += [pad] * (count - len(out))
        return out
    out = []
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


_ROUND_F = ((0, 3, 29), (1, 7, 25), (2, 11, 21), (3, 19, 13), (4, 3, 29), (5, 7, 25), (6, 11, 21), (7, 19, 13))
_ROUND_G = ((1, 3, 29), (3, 5, 27), (5, 9, 23), (7, 13, 19), (0, 3, 29), (2, 5, 27), (4, 9, 23), (6, 13, 19))
_ROUND_H = ((3, 3, 29), (7, 9, 23), (2, 11, 21), (6, 15, 17), (1, 3, 29), (5, 9, 23), (0, 11, 21), (4, 15, 17))


def _half_md4(state: list[int], data: list[int]) -> None:
    a, b, c, d = state
    for x, left, right in _ROUND_F:
        a = a + (d ^ b & (c ^ d)) + data[x] & 0xFFFFFFFF
        a, b, c, d = d, (a << left | a >> right) & 0xFFFFFFFF, b, c
    for x, left, right in _ROUND_G:
        a = a + (b & c) + ((b ^ c) & d) + data[x] + 0x5A827999 & 0xFFFFFFFF
        a, b, c, d = d, (a << left | a >> right) & 0xFFFFFFFF, b, c
    for x, left, right in _ROUND_H:
        a = a + (b ^ c ^ d) + data[x] + 0x6ED9EBA1 & 0xFFFFFFFF
        a, b, c, d = d, (a << left | a >> right) & 0xFFFFFFFF, b, c
    state[:] = (state[0] + a & _MASK, state[1] + b & _MASK, state[2] + c & _MASK, state[3] + d & _MASK)


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
