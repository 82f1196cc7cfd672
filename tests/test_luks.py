"""LUKS volumes: what qemu-img and cryptsetup write is read, what is written here they read; hostile headers end."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import judges
from cowshed.block.graph import open_image
from cowshed.block.node import Node
from cowshed.block.secret import Secrets
from cowshed.errors import CorruptError, CowshedError, FeatureError, FormatError, OpenError, OptionError

KEY = b"sekrit"
MIB = 1 << 20


def opened(path: Path, *, writable: bool = False, no_io: bool = False, key: bytes = KEY) -> Node:
    return open_image(
        str(path), fmt="luks", options={"key-secret": "s"}, secrets=Secrets(s=key), writable=writable, no_io=no_io
    )


@contextlib.contextmanager
def refused(kind: type[CowshedError], words: str) -> Iterator[None]:
    """Opening fails soon, for a reason of this kind."""
    begun = time.process_time()
    with pytest.raises(OpenError, match=words) as caught:
        yield
    cause: BaseException = caught.value
    while cause.__cause__ is not None:
        cause = cause.__cause__
        if isinstance(cause, kind):
            break
    assert isinstance(cause, kind), repr(cause)
    assert time.process_time() - begun < 10


_MADE: dict[tuple[str, ...], bytes] = {}


def create1(path: Path, options: str = "", size: str = "3M") -> Path:
    """A volume of qemu-img's, which takes a second of measuring for each that it makes: one of a kind is copied."""
    if (options, size) not in _MADE:
        judges.run(
            "qemu-img", "create", "-q", "-f", "luks", "--object", "secret,id=s,data=sekrit",
            "-o", "key-secret=s,iter-time=10" + ("," + options if options else ""), str(path), size,
        )  # fmt: skip
        _MADE[options, size] = path.read_bytes()
    path.write_bytes(_MADE[options, size])
    return path


def access(path: Path) -> list[str]:
    return ["--object", "secret,id=s,data=sekrit", "--image-opts", f"driver=luks,key-secret=s,file.filename={path}"]


KINDS = [
    "",
    "cipher-alg=aes-128",
    "cipher-mode=cbc,ivgen-alg=essiv,ivgen-hash-alg=sha256",
    "cipher-mode=cbc,ivgen-alg=essiv,ivgen-hash-alg=sha256,cipher-alg=aes-128,hash-alg=sha1",
    "cipher-mode=xts,ivgen-alg=plain,hash-alg=sha1",
    "cipher-mode=cbc,ivgen-alg=plain,hash-alg=sha512",
    "cipher-mode=cbc,ivgen-alg=plain64,hash-alg=ripemd160",
    "cipher-mode=xts,ivgen-alg=essiv,ivgen-hash-alg=sha256",
    "cipher-mode=ecb,ivgen-alg=plain64",
]


@pytest.mark.parametrize("kind", KINDS)
def test_version_1_beside_qemu_img(tmp_path: Path, kind: str) -> None:
    image = create1(tmp_path / "a.luks", kind)
    plain = tmp_path / "plain"
    model = bytearray(random.Random(kind).randbytes(3 * MIB))
    plain.write_bytes(model)
    judges.run(
        "qemu-img", "convert", "-n", "--object", "secret,id=s,data=sekrit", "-f", "raw", str(plain),
        "--target-image-opts", f"driver=luks,key-secret=s,file.filename={image}",
    )  # fmt: skip
    dice = random.Random(1)
    with opened(image, writable=True) as node:
        assert node.size == 3 * MIB
        assert node.read(0, node.size) == model
        for _ in range(40):
            at = dice.randrange(node.size)
            length = min(dice.choice((1, 15, 512, 700, 4096, 100_000, 1_200_000)), node.size - at)
            assert node.read(at, length) == model[at : at + length]
            data = dice.randbytes(length)
            node.write(at, data)
            model[at : at + length] = data
        node.write_zeroes(100_000, 7777)
        model[100_000:107_777] = bytes(7777)
        node.flush()
        assert node.read(0, node.size) == model
    judges.run("qemu-img", "convert", *access(image), "-O", "raw", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == model


@pytest.mark.parametrize("kind", KINDS[:4])
def test_words_of_the_tool(tmp_path: Path, kind: str) -> None:
    qemu = judges.need_series("qemu-img")
    image = create1(tmp_path / "a.luks", kind)
    for argv in (
        ["info", str(image)],
        ["info", "--output=json", str(image)],
        ["info", *access(image)],
        ["map", *access(image)],
        ["map", "--output=json", *access(image)],
        ["convert", "-f", "luks", str(image), "-O", "raw", str(tmp_path / "x")],
        ["convert", *(word.replace("sekrit", "wrong") for word in access(image)), "-O", "raw", str(tmp_path / "x")],
        ["check", str(image)],
    ):
        theirs = subprocess.run([qemu, *argv], capture_output=True, text=True, timeout=60)
        ours = subprocess.run(
            [sys.executable, "-m", "cowshed", "qemu-img", *argv], capture_output=True, text=True, timeout=60
        )
        assert (ours.returncode, ours.stdout, ours.stderr) == (theirs.returncode, theirs.stdout, theirs.stderr), argv


def test_resize_follows_the_file(tmp_path: Path) -> None:
    image = create1(tmp_path / "a.luks")
    with opened(image, writable=True) as node:
        node.resize(5 * MIB)
        node.write(5 * MIB - 600, b"x" * 600)
    judges.run("qemu-img", "convert", *access(image), "-O", "raw", str(tmp_path / "back"))
    back = (tmp_path / "back").read_bytes()
    assert len(back) == 5 * MIB and back.endswith(b"x" * 600)


def test_no_key_no_data(tmp_path: Path) -> None:
    image = create1(tmp_path / "a.luks")
    with refused(OptionError, "Parameter 'key-secret' is required for cipher"):
        open_image(str(image), fmt="luks")
    with refused(CowshedError, "Invalid password, cannot unlock any keyslot"):
        opened(image, key=b"wrong")
    with open_image(str(image), fmt="luks", no_io=True) as node, pytest.raises(CowshedError, match="locked"):
        node.read(0, 512)


# -- version 2 -------------------------------------------------------------------------------------------------------

ARGON = ("--pbkdf-force-iterations", "4", "--pbkdf-memory", "64")
PBKDF2 = ("--pbkdf-force-iterations", "1000")
KINDS2 = [
    ("argon2id", "aes-xts-plain64", 512, 512, "sha256"),
    ("argon2i", "aes-xts-plain64", 256, 4096, "sha512"),
    ("pbkdf2", "aes-cbc-essiv:sha256", 256, 512, "sha1"),
    ("pbkdf2", "aes-cbc-plain64", 128, 4096, "ripemd160"),
    ("argon2id", "aes-xts-plain", 512, 2048, "sha512"),
    ("pbkdf2", "aes-cbc-plain", 192, 1024, "sha384"),
]
PLAIN = random.Random(5).randbytes(2 * MIB)


def encrypt2(folder: Path, kdf: str, cipher: str, key_bits: int, sector: int, hash_name: str) -> Path:
    """A file of PLAIN made a LUKS2 volume by cryptsetup, which needs room to move it."""
    (folder / "key").write_bytes(KEY)
    image = folder / "e.img"
    image.write_bytes(PLAIN)
    os.truncate(image, 34 * MIB)
    judges.run(
        "cryptsetup", "reencrypt", "--encrypt", "--type", "luks2", "--reduce-device-size", "32M", "-q",
        "--key-file", str(folder / "key"), "--pbkdf", kdf, *(PBKDF2 if kdf == "pbkdf2" else ARGON),
        "--cipher", cipher, "--key-size", str(key_bits), "--hash", hash_name, "--sector-size", str(sector), str(image),
    )  # fmt: skip
    return image


@pytest.mark.parametrize("kind", KINDS2, ids=lambda kind: "-".join(map(str, kind)))
def test_version_2_beside_cryptsetup(tmp_path: Path, kind: tuple[str, str, int, int, str]) -> None:
    image = encrypt2(tmp_path, *kind)
    new = random.Random(6).randbytes(70_000)
    with opened(image, writable=True) as node:
        assert node.read(0, len(PLAIN)) == PLAIN
        assert node.read(4097, 12_345) == PLAIN[4097 : 4097 + 12_345]
        node.write(12_345, new)
        facts = node.format_specific()
        assert facts is not None
        assert facts["data"]["slots"][0]["kdf"] == kind[0]
        assert facts["data"]["sector-size"] == kind[3]
    wanted = PLAIN[:12_345] + new + PLAIN[12_345 + len(new) :]
    judges.run(
        "cryptsetup", "reencrypt", "--decrypt", "--header", str(tmp_path / "header"), "--force-offline-reencrypt",
        "--key-file", str(tmp_path / "key"), "-q", str(image),
    )  # fmt: skip
    assert image.read_bytes()[: len(wanted)] == wanted


def format2(folder: Path, *options: str, name: str = "f.img") -> Path:
    (folder / "key").write_bytes(KEY)
    image = folder / name
    with open(image, "wb") as file:
        file.truncate(18 * MIB)
    judges.run(
        "cryptsetup", "luksFormat", "--type", "luks2", "-q", "--pbkdf", "pbkdf2", *PBKDF2, *options,
        str(image), str(folder / "key"),
    )  # fmt: skip
    return image


def test_second_key_and_version_1_of_cryptsetup(tmp_path: Path) -> None:
    image = format2(tmp_path)
    (tmp_path / "other").write_bytes(b"another one")
    judges.run(
        "cryptsetup", "luksAddKey", "-q", "--key-file", str(tmp_path / "key"), "--pbkdf", "argon2id", *ARGON,
        str(image), str(tmp_path / "other"),
    )  # fmt: skip
    with opened(image, writable=True) as node:
        node.write(0, b"hello")
    with opened(image, key=b"another one") as node:
        assert node.read(0, 5) == b"hello"
    one = tmp_path / "one.img"
    one.write_bytes(bytes(8 * MIB))
    judges.run(
        "cryptsetup", "luksFormat", "--type", "luks1", "-q", "--pbkdf-force-iterations", "1000", str(one),
        str(tmp_path / "key"),
    )  # fmt: skip
    with opened(one, writable=True) as node:
        node.write(5000, b"hello")
    judges.run("qemu-img", "convert", *access(one), "-O", "raw", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes()[5000:5005] == b"hello"


def test_the_newer_whole_copy_of_the_header_counts(tmp_path: Path) -> None:
    image = format2(tmp_path)
    whole = image.read_bytes()
    for place, length in ((0, 6), (0, 4096), (4100, 40), (0x4000, 6), (0x4000 + 4100, 40)):
        image.write_bytes(whole[:place] + bytes(length) + whole[place + length :])
        with opened(image) as node:
            assert node.size == 2 * MIB
    image.write_bytes(whole[:4100] + bytes(40) + whole[4140 : 0x4000 + 4100] + bytes(40) + whole[0x4000 + 4140 :])
    with refused(CorruptError, "checksum"):
        opened(image)


def rewritten(image: Path, change: object) -> None:
    """Change the JSON of both copies, and make the checksums right again."""
    data = bytearray(image.read_bytes())
    for place in (0, 0x4000):
        top = json.loads(data[place + 4096 : place + 0x4000].split(b"\0")[0])
        change(top)  # type: ignore[operator]
        text = json.dumps(top).encode()
        assert len(text) < 0x3000
        data[place + 4096 : place + 0x4000] = text.ljust(0x3000, b"\0")
        data[place + 0x1C0 : place + 0x200] = bytes(64)
        made = hashlib.sha256(data[place : place + 0x4000]).digest()
        data[place + 0x1C0 : place + 0x1E0] = made
    image.write_bytes(data)


def _set(*path: str, value: object) -> object:
    def change(top: dict[str, object]) -> None:
        for name in path[:-1]:
            top = top[name]  # type: ignore[assignment]
        top[path[-1]] = value

    return change


HOSTILE = [
    (_set("keyslots", "0", "kdf", "iterations", value=(1 << 32) - 1), FormatError, "iterations"),
    (_set("keyslots", "0", "kdf", value={"type": "argon2id", "time": 4, "memory": 1 << 31, "cpus": 4, "salt": "AAAA"}),
     FormatError, "memory"),
    (_set("keyslots", "0", "kdf", value={"type": "argon2id", "time": 1 << 31, "memory": 64, "cpus": 4, "salt": "AA=="}),
     FormatError, "time"),
    (_set("keyslots", "0", "af", "stripes", value=1 << 30), CorruptError, "stripes"),
    (_set("keyslots", "0", "key_size", value=1 << 30), CorruptError, "key_size"),
    (_set("keyslots", "0", "area", "size", value=str(1 << 60)), CorruptError, "outside"),
    (_set("keyslots", "0", "area", "offset", value="4096"), CorruptError, "outside"),
    (_set("keyslots", "0", "area", "offset", value="x"), CorruptError, "no number"),
    (_set("keyslots", "0", "area", "offset", value=7), CorruptError, "another kind"),
    (_set("keyslots", "0", "kdf", "hash", value="\ud800"), FeatureError, r"Hash algorithm '\\ud800'"),
    (_set("keyslots", "0", "area", "encryption", value="serpent-xts-plain64"), FeatureError, "serpent"),
    (_set("keyslots", "0", "type", value="reencrypt"), FeatureError, "reencrypted"),
    (_set("segments", "0", "encryption", value="twofish-xts-plain64"), FeatureError, "twofish"),
    (_set("segments", "0", "integrity", value={"type": "hmac(sha256)"}), FeatureError, "dm-integrity"),
    (_set("segments", "0", "type", value="linear"), FeatureError, "linear"),
    (_set("segments", "0", "sector_size", value=513), CorruptError, "sector"),
    (_set("segments", "0", "size", value=str(1 << 62)), CorruptError, "sector count"),
    (_set("segments", "0", "offset", value="32768"), CorruptError, "overlaps"),
    (_set("segments", "0", "offset", value="0"), FeatureError, "detached"),
    (_set("segments", value={}), FeatureError, "0 segments"),
    (_set("digests", value={}), FormatError, "digest"),
    (_set("digests", "0", "hash", value="md17"), FeatureError, "md17"),
    (_set("digests", "0", "digest", value="!!"), CorruptError, "base64"),
    (_set("config", "requirements", value={"mandatory": ["online-reencrypt-v2"]}), FeatureError, "online-reencrypt-v2"),
    (_set("config", "keyslots_size", value=str(1 << 50)), CorruptError, "too large"),
    (_set("config", "json_size", value="4096"), CorruptError, "json_size"),
    (_set("keyslots", value=[]), CorruptError, "another kind"),
    (_set("keyslots", value={"../x": {}}), CorruptError, "no item"),
]  # fmt: skip


@pytest.mark.parametrize("index", range(len(HOSTILE)))
def test_hostile_metadata_is_refused_by_name(tmp_path: Path, index: int) -> None:
    change, kind, words = HOSTILE[index]
    image = format2(tmp_path)
    rewritten(image, change)
    with refused(kind, words):
        opened(image)


def test_overlapping_areas(tmp_path: Path) -> None:
    def change(top: dict[str, dict[str, object]]) -> None:
        top["keyslots"]["1"] = top["keyslots"]["0"]

    image = format2(tmp_path)
    rewritten(image, change)
    with refused(CorruptError, "overlap"):
        opened(image)


def test_integrity_of_cryptsetup_is_refused_by_name(tmp_path: Path) -> None:
    image = format2(tmp_path)
    rewritten(image, _set("segments", "0", "integrity", value={"type": "aead", "journal_encryption": "none"}))
    with refused(FeatureError, "aead"):
        opened(image)


@pytest.mark.parametrize(
    ("at", "data", "words"),
    [
        (6, b"\0\3", "LUKS version 3 is not supported"),
        (8, b"x" * 32, "cipher name is not NUL terminated"),
        (8, b"serpent\0", "serpent"),
        (8, b"twofish\0", "twofish"),
        (40, b"xts\0" + bytes(20), "Unexpected cipher mode string format 'xts'"),
        (72, b"foo\0", "Hash algorithm 'foo' not supported"),
        (104, bytes(4), "detached"),
        (104, b"\xff\xff\xff\xff", "total sector count"),
        (108, b"\x40\0\0\0", "key"),
        (164, bytes(4), "iteration count is zero"),
        (164, b"\xff\xff\xff\xff", "iterations is refused"),
        (208, b"\0\0\0\1", "Keyslot 0 state"),
        (212, b"\xff\xff\xff\xff", "iterations is refused"),
        (248, bytes(4), "overlapping with the LUKS header"),
        (252, b"\0\0\0\1", "stripes 1 != 4000"),
        (296, b"\0\0\0\x08", "Keyslots 0 and 1 are overlapping"),
    ],
)
def test_hostile_headers_of_version_1(tmp_path: Path, at: int, data: bytes, words: str) -> None:
    image = create1(tmp_path / "a.luks")
    whole = bytearray(image.read_bytes())
    whole[at : at + len(data)] = data
    image.write_bytes(whole)
    with refused(CowshedError, words):
        opened(image)


class Bytes(Node):
    """Bytes in memory as a node."""

    def __init__(self, data: bytes) -> None:
        super().__init__("bytes")
        self.data = data
        self.size = len(data)

    def read_into(self, offset: int, view: memoryview) -> None:
        self._check_range(offset, len(view))
        view[:] = self.data[offset : offset + len(view)]


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_header_ends_in_facts_or_a_clear_error(data: st.DataObject) -> None:
    from cowshed.block.format.luks.header import read_header

    head = bytearray(_samples()[data.draw(st.integers(0, 1))])
    for _ in range(data.draw(st.integers(0, 6))):
        at = data.draw(st.integers(0, min(len(head), 5200) - 1))
        head[at] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()) and head[6:8] == b"\0\2":
        head[0x1C0:0x200] = bytes(64)
        head[0x1C0:0x1E0] = hashlib.sha256(head[:0x4000]).digest()
    try:
        read_header(Bytes(bytes(head[: data.draw(st.integers(0, len(head)))])))
    except FormatError:
        pass


def _samples() -> tuple[bytes, bytes]:
    if not _SAMPLES:
        import tempfile

        with tempfile.TemporaryDirectory() as name:
            one = create1(Path(name) / "one", size="1M").read_bytes()[:4096]
            two = format2(Path(name)).read_bytes()[:0x8000]
        _SAMPLES.extend((one, two))
    return _SAMPLES[0], _SAMPLES[1]


_SAMPLES: list[bytes] = []


@pytest.mark.parametrize("sector", [512, 4096])
@pytest.mark.parametrize("number", [0, 2**32 - 8, 2**55])
def test_many_sectors_at_once_are_as_one_by_one(sector: int, number: int) -> None:
    from cowshed.block.format.luks.cipher import sector_cipher
    from cowshed.block.format.luks.spec import Spec

    dice = random.Random(sector + number)
    cipher = sector_cipher(Spec.parse("aes-xts-plain64"), dice.randbytes(64), sector)
    clear = dice.randbytes(sector * 40)
    singly = b"".join(
        bytes(cipher.encrypt(number + at // 512, clear[at : at + sector])) for at in range(0, len(clear), sector)
    )
    assert cipher.encrypt(number, clear + bytes(MIB))[: len(clear)] == singly
    back = bytearray(singly + bytes(MIB))
    cipher.decrypt(number, memoryview(back))
    assert back[: len(clear)] == clear


def test_bulk_is_fast() -> None:
    """Well above the library's own XTS with a context a sector, measured side by side."""
    from cowshed.block.format.luks.cipher import sector_cipher
    from cowshed.block.format.luks.spec import Spec

    cipher = sector_cipher(Spec.parse("aes-xts-plain64"), bytes(range(64)))
    view = memoryview(bytearray(8 * MIB))
    cipher.decrypt(0, view)
    cipher.decrypt(0, view)  # numpy is imported by now
    begun = time.process_time()
    cipher.decrypt(0, view)
    bulk = time.process_time() - begun
    begun = time.process_time()
    for at in range(0, MIB, 512):
        cipher.decrypt(at // 512, view[at : at + 512])
    assert bulk < 8 * (time.process_time() - begun) / 1.5
