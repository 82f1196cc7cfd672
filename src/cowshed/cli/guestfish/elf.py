"""ELF files in file(1)'s words: what kind, for which machine, how it is linked (System V ABI, chapters 4 and 5)."""

from __future__ import annotations

import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Read = Callable[[int, int], bytes]

#: what a table or a string may take at most
_MOST = 1 << 20

_MACHINES = {
    2: "SPARC", 3: "Intel 80386", 8: "MIPS", 20: "PowerPC or cisco 4500", 21: "64-bit PowerPC or cisco 7500",
    22: "IBM S/390", 40: "ARM", 43: "SPARC V9", 50: "IA-64", 62: "x86-64", 183: "ARM aarch64", 243: "UCB RISC-V",
    258: "LoongArch",
}  # fmt: skip
_SYSTEMS = {0: "SYSV", 3: "GNU/Linux", 6: "Solaris", 9: "FreeBSD", 12: "OpenBSD"}
_KINDS = {1: "relocatable", 2: "executable", 3: "shared object", 4: "core file"}
_HOSTS = {0: "Linux", 1: "Hurd", 2: "Solaris", 3: "kFreeBSD", 4: "kNetBSD"}


class _Elf:
    """The parts of a file that are looked at. Raises struct.error for one that ends too soon."""

    def __init__(self, read: Read) -> None:
        self.read = read
        head = read(0, 64)
        self.wide = head[4] == 2
        self.order = "<" if head[5] == 1 else ">"
        word = "Q" if self.wide else "I"
        self.kind, self.machine, self.version = self.fields("HHI", head, 16)
        (_, phoff, shoff, self.flags, _, phsize, phcount, shsize, shcount, _) = self.fields(
            f"{word}{word}{word}IHHHHHH", head, 24
        )
        #: (type, offset, size) of segments and of sections
        self.segments = [self._segment(row) for row in self._rows(phoff, phsize, phcount, 56 if self.wide else 32)]
        self.sections = [self._section(row) for row in self._rows(shoff, shsize, shcount, 64 if self.wide else 40)]

    def fields(self, shape: str, data: bytes, at: int = 0) -> tuple[int, ...]:
        return struct.unpack_from(self.order + shape, data, at)

    def _rows(self, offset: int, size: int, count: int, least: int) -> list[bytes]:
        if not offset or size < least or count * size > _MOST:
            return []
        data = self.read(offset, count * size)
        return [data[at : at + size] for at in range(0, len(data) - size + 1, size)]

    def _segment(self, row: bytes) -> tuple[int, int, int]:
        if self.wide:
            kind, _, offset, _, _, size = self.fields("IIQQQQ", row)
        else:
            kind, offset, _, _, size = self.fields("IIIII", row)
        return kind, offset, size

    def _section(self, row: bytes) -> tuple[int, int, int]:
        if self.wide:
            _, kind, _, _, offset, size = self.fields("IIQQQQ", row)
        else:
            _, kind, _, _, offset, size = self.fields("IIIIII", row)
        return kind, offset, size

    def notes(self) -> dict[tuple[bytes, int], bytes]:
        """(owner, type) -> description, of all segments and sections of notes."""
        found: dict[tuple[bytes, int], bytes] = {}
        places = [(offset, size) for kind, offset, size in self.segments if kind == 4]
        places += [(offset, size) for kind, offset, size in self.sections if kind == 7]
        for offset, size in places:
            data = self.read(offset, min(size, _MOST))
            at = 0
            while at + 12 <= len(data):
                named, described, kind = self.fields("III", data, at)
                start = at + 12 + -(-named // 4) * 4
                owner = data[at + 12 : at + 12 + named].rstrip(b"\0")
                found.setdefault((owner, kind), data[start : start + described])
                at = start + -(-described // 4) * 4
        return found

    def flags_1(self) -> int:
        """DT_FLAGS_1 of the dynamic segment, with which position-independent programs say what they are."""
        for kind, offset, size in self.segments:
            if kind != 2:
                continue
            step = 16 if self.wide else 8
            data = self.read(offset, min(size, _MOST))
            for at in range(0, len(data) - step + 1, step):
                tag, value = self.fields("QQ" if self.wide else "II", data, at)
                if tag == 0x6FFFFFFB:
                    return value
        return 0


def describe_elf(read: Read) -> str:
    """``read(offset, length)`` gives the file's bytes, fewer at its end."""
    head = read(0, 64)
    if len(head) < 52 or head[4] not in (1, 2) or head[5] not in (1, 2):
        return "ELF, unknown class" if len(head) < 5 or head[4] not in (1, 2) else "ELF"
    words = f"ELF {'64' if head[4] == 2 else '32'}-bit {'LSB' if head[5] == 1 else 'MSB'}"
    try:
        elf = _Elf(read)
    except struct.error:
        return words
    program = any(kind == 3 for kind, _, _ in elf.segments)
    pie = elf.kind == 3 and bool(elf.flags_1() & 0x08000000)
    kind = "pie executable" if pie else _KINDS.get(elf.kind, "unknown type")
    machine = _MACHINES.get(elf.machine, f"*unknown arch {elf.machine:#x}*")
    parts = [f"{words} {kind}", machine + _detail(elf), f"version {elf.version} ({_SYSTEMS.get(head[7], 'unknown')})"]
    if elf.kind in (2, 3):
        dynamic = any(kind == 2 for kind, _, _ in elf.segments)
        if dynamic:
            parts.append("dynamically linked" if program or (elf.kind == 3 and not pie) else "static-pie linked")
        else:
            parts.append("statically linked")
        for number, offset, size in elf.segments:
            if number == 3:
                name = read(offset, min(size, 4096)).split(b"\0")[0].decode("utf-8", "replace")
                parts.append(f"interpreter {name}")
                break
    parts += _said(elf)
    if elf.sections and elf.kind != 4:
        named = {kind for kind, _, _ in elf.sections}
        parts.append("not stripped" if 2 in named else "stripped")
    elif elf.kind in (2, 3):
        parts.append("no section header")
    return ", ".join(parts)


def _detail(elf: _Elf) -> str:
    """What the flags of the header say of the machine."""
    if elf.machine == 40 and elf.flags >> 24:
        return f", EABI{elf.flags >> 24}"
    if elf.machine == 243:
        words = ["RVC"] if elf.flags & 1 else []
        words.append({0: "soft-float", 2: "single-float", 4: "double-float"}.get(elf.flags & 6, "quad-float") + " ABI")
        return ", " + ", ".join(words)
    if elf.machine == 21 and elf.flags & 3 == 2:
        return ", OpenPOWER ELF V2 ABI"
    return ""


def _said(elf: _Elf) -> list[str]:
    """What the notes say, in their order: the build, and the oldest kernel that it runs on."""
    parts = []
    for (owner, number), text in elf.notes().items():
        if (owner, number) == (b"GNU", 3) and text:
            kind = {8: "xxHash", 16: "md5/uuid", 20: "sha1"}.get(len(text))
            parts.append(f"BuildID[{kind}]={text.hex()}" if kind else f"BuildID={text.hex()}")
        elif (owner, number) == (b"GNU", 1) and len(text) >= 16:
            system, *version = elf.fields("IIII", text)
            parts.append(f"for GNU/{_HOSTS.get(system, '<unknown>')} {'.'.join(map(str, version))}")
    return parts
