"""CRC-32C against the published check values and against the definition, bit by bit."""

from __future__ import annotations

import random

import pytest

from cowshed.guest.crc32c import crc32c, crc32c_raw


def by_definition(data: bytes) -> int:
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


def test_published_values() -> None:
    # RFC 3720, B.4, and the check value of the catalogue of CRCs
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E
    assert crc32c(bytes(range(31, -1, -1))) == 0x113FDB5C
    assert crc32c(b"") == 0


@pytest.mark.parametrize("length", [*range(1, 140), 255, 511, 512, 1023, 1024, 2048, 4095, 4096, 4097, 16384, 65536])
def test_lengths(length: int) -> None:
    data = random.Random(length).randbytes(length)
    assert crc32c(data) == by_definition(data)


def test_pieces_and_continuation() -> None:
    data = random.Random(1).randbytes(300_001)
    whole = crc32c(data)
    assert whole == by_definition(data)
    for cut in (0, 1, 95, 4096, 131072, 200_000):
        assert crc32c(data[cut:], crc32c(data[:cut])) == whole
    assert crc32c(memoryview(data)) == crc32c(bytearray(data)) == whole
    assert crc32c_raw(data, 0xFFFFFFFF) ^ 0xFFFFFFFF == whole


def test_leading_zeroes_count() -> None:
    for length in (97, 500, 4096):
        assert crc32c(bytes(length)) == by_definition(bytes(length))
        assert crc32c_raw(bytes(length), 0) == 0
