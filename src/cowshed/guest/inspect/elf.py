"""The architecture of a program from its ELF header (System V ABI, "Object Files")."""

from __future__ import annotations

import struct

#: e_machine -> (name of 32-bit little endian, 32 big, 64 little, 64 big); "" where there is none
_MACHINES: dict[int, tuple[str, str, str, str]] = {
    2: ("", "sparc", "", ""),
    3: ("i386", "", "", ""),
    6: ("i386", "", "", ""),
    4: ("", "m68k", "", ""),
    8: ("mipsel", "mips", "mips64el", "mips64"),
    15: ("", "parisc", "", "parisc64"),
    18: ("", "sparc", "", ""),
    20: ("ppcle", "ppc", "", ""),
    21: ("", "", "ppc64le", "ppc64"),
    22: ("", "s390", "", "s390x"),
    40: ("arm", "armeb", "", ""),
    42: ("sh4", "sh4eb", "", ""),
    43: ("", "", "", "sparc64"),
    50: ("", "", "ia64", ""),
    62: ("x86_64", "", "x86_64", ""),
    183: ("", "", "aarch64", "aarch64_be"),
    243: ("riscv32", "", "riscv64", ""),
    258: ("loongarch32", "", "loongarch64", ""),
    0x9026: ("", "", "alpha", ""),
}

HEADER = 20


def architecture(head: bytes) -> str | None:
    """The name that `file-architecture` gives, of the first bytes of a file; None when it is no ELF that is known."""
    if len(head) < HEADER or head[:4] != b"\x7fELF" or head[4] not in (1, 2) or head[5] not in (1, 2):
        return None
    (machine,) = struct.unpack_from("<H" if head[5] == 1 else ">H", head, 18)
    names = _MACHINES.get(machine)
    if names is None:
        return None
    return names[(head[4] - 1) * 2 + head[5] - 1] or None
