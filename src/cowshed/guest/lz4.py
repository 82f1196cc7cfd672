"""LZ4 blocks are unpacked (lz4_Block_format): for what guests pack with it, kernels' archives and journals."""

from __future__ import annotations


def unpack(data: bytes, limit: int) -> bytes:
    """The bytes of one block, no more than ``limit``. Raises ValueError when it is damaged or too long."""
    out = bytearray()
    at, end = 0, len(data)
    while at < end:
        token = data[at]
        at += 1
        count, at = _length(data, at, token >> 4)
        if at + count > end or len(out) + count > limit:
            raise ValueError("literals beyond the end")
        out += data[at : at + count]
        at += count
        if at == end:
            return bytes(out)
        back = int.from_bytes(data[at : at + 2], "little")
        at += 2
        if not 0 < back <= len(out):
            raise ValueError("a match before the begin")
        count, at = _length(data, at, token & 15)
        count += 4
        if len(out) + count > limit:
            raise ValueError("a match beyond the end")
        start = len(out) - back
        if back >= count:
            out += out[start : start + count]
        else:
            # a match that runs into itself repeats what is between
            piece = bytes(out[start:])
            out += (piece * (count // back + 1))[:count]
    raise ValueError("it ends without literals")


def _length(data: bytes, at: int, value: int) -> tuple[int, int]:
    """A length of four bits and what follows them, and where it ends."""
    if value < 15:
        return value, at
    while True:
        if at >= len(data):
            raise ValueError("it ends within a length")
        value += data[at]
        at += 1
        if data[at - 1] != 255:
            return value, at
