"""What bytes are, in file(1)'s words: ELF as elf.py reads it, else libmagic's own where the host has it, else a short
list of common kinds."""

from __future__ import annotations

import stat as _stat
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_MACHINES = {
    3: "i386", 8: "mips", 20: "ppc", 21: "ppc64", 22: "s390", 40: "arm", 43: "sparc64", 50: "ia64", 62: "x86_64",
    183: "aarch64", 243: "riscv64", 258: "loongarch64",
}  # fmt: skip
_COMPRESS = 0x4
_NAMES = {
    b"\x1f\x8b": "gzip compressed data", b"BZh": "bzip2 compressed data", b"\xfd7zXZ\0": "XZ compressed data",
    b"\x28\xb5\x2f\xfd": "Zstandard compressed data", b"PK\x03\x04": "Zip archive data",
    b"\x89PNG\r\n\x1a\n": "PNG image data", b"\xff\xd8\xff": "JPEG image data", b"%PDF-": "PDF document",
    b"SQLite format 3\0": "SQLite 3.x database", b"QFI\xfb": "QEMU QCOW Image", b"!<arch>\n": "current ar archive",
    b"\xed\xab\xee\xdb": "RPM", b"070701": "ASCII cpio archive (SVR4 with no CRC)", b"MZ": "MS-DOS executable",
}  # fmt: skip


def describe(data: bytes, mode: int = 0, read: Callable[[int, int], bytes] | None = None) -> str:
    """A description of a file's first bytes, with what its mode adds; ``read(offset, length)`` gives more of it."""
    if not data:
        return "empty"
    if data[:4] == b"\x7fELF":
        # what they are is said at their ends
        from .elf import describe_elf

        text = describe_elf(read or (lambda offset, length: data[offset : offset + length]))
    else:
        text = _libmagic(data) or _own(data)
    marks = ((_stat.S_ISUID, "setuid "), (_stat.S_ISGID, "setgid "), (_stat.S_ISVTX, "sticky "))
    return "".join(word for bit, word in marks if mode & bit) + text


def _libmagic(data: bytes) -> str | None:
    import ctypes

    try:
        library = ctypes.CDLL("libmagic.so.1")
        library.magic_open.restype = ctypes.c_void_p
        library.magic_load.argtypes = (ctypes.c_void_p, ctypes.c_char_p)
        library.magic_buffer.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t)
        library.magic_buffer.restype = ctypes.c_char_p
        library.magic_close.argtypes = (ctypes.c_void_p,)
        cookie = library.magic_open(_COMPRESS)
    except (OSError, AttributeError):
        return None
    if not cookie:
        return None
    try:
        if library.magic_load(cookie, None):
            return None
        found: bytes | None = library.magic_buffer(cookie, data, len(data))
        return None if found is None else found.decode("utf-8", "replace")
    finally:
        library.magic_close(cookie)


def _own(data: bytes) -> str:
    for magic, name in _NAMES.items():
        if data.startswith(magic):
            return name
    if data.startswith(b"#!"):
        program = data[2:].split(b"\n")[0].strip().decode("utf-8", "replace")
        return f"{program} script, ASCII text executable"
    control = bytes(byte for byte in range(32) if byte not in (7, 8, 9, 10, 12, 13, 27)) + b"\x7f"
    if data.translate(None, control) != data:
        return "data"
    if data.isascii():
        kind = "ASCII text"
    else:
        try:
            # the last character may be cut
            data[: -3 if len(data) > 8 else None].decode("utf-8")
            kind = "Unicode text, UTF-8 text"
        except UnicodeDecodeError:
            kind = "ISO-8859 text"
    if b"\r\n" in data:
        return f"{kind}, with CRLF line terminators"
    return kind if b"\n" in data else f"{kind}, with no line terminators"


def _half(data: bytes, at: int) -> int:
    value: int = struct.unpack_from("<H" if data[5] == 1 else ">H", data, at)[0]
    return value


def architecture(data: bytes) -> str | None:
    """The machine of an ELF file as libguestfs calls it, None for anything else."""
    if data[:4] != b"\x7fELF" or len(data) < 20:
        return None
    name = _MACHINES.get(_half(data, 18))
    if name == "ppc64" and data[5] == 1:
        return "ppc64le"
    if name == "s390" and data[4] == 2:
        return "s390x"
    if name == "mips" and data[5] == 1:
        return "mipsel"
    return name
