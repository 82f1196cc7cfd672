"""Capabilities of files: the text form of cap_from_text(3) and the bytes of security.capability.

The bytes are struct vfs_cap_data of linux/capability.h: a magic number with a revision and the effective flag, then
permitted and inheritable sets in words of 32 bits; revision 3 has the root user of a name space behind them.
"""

from __future__ import annotations

import errno
import os
import stat as _stat
import struct

from .filesystem.base import GuestError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .tree import Tree

ATTRIBUTE = b"security.capability"

#: by number, as in linux/capability.h
NAMES = (
    "cap_chown", "cap_dac_override", "cap_dac_read_search", "cap_fowner", "cap_fsetid", "cap_kill", "cap_setgid",
    "cap_setuid", "cap_setpcap", "cap_linux_immutable", "cap_net_bind_service", "cap_net_broadcast", "cap_net_admin",
    "cap_net_raw", "cap_ipc_lock", "cap_ipc_owner", "cap_sys_module", "cap_sys_rawio", "cap_sys_chroot",
    "cap_sys_ptrace", "cap_sys_pacct", "cap_sys_admin", "cap_sys_boot", "cap_sys_nice", "cap_sys_resource",
    "cap_sys_time", "cap_sys_tty_config", "cap_mknod", "cap_lease", "cap_audit_write", "cap_audit_control",
    "cap_setfcap", "cap_mac_override", "cap_mac_admin", "cap_syslog", "cap_wake_alarm", "cap_block_suspend",
    "cap_audit_read", "cap_perfmon", "cap_bpf", "cap_checkpoint_restore",
)  # fmt: skip
_NUMBERS = {name: number for number, name in enumerate(NAMES)}
#: numbers that fit into the sets, with those that have no name
_ROOM = 64
_E, _P, _I = 1, 2, 4
_FLAGS = {"e": _E, "p": _P, "i": _I}
_EFFECTIVE = 1
#: revision -> how many words each set has
_WORDS = {1: 1, 2: 2, 3: 2}


class CapabilityError(ValueError):
    """A text that names no set of capabilities."""

    errno = errno.EINVAL

    def __init__(self) -> None:
        super().__init__(os.strerror(errno.EINVAL))


def parse(text: str) -> list[int]:
    """What each of 64 capabilities has: bits 1 effective, 2 permitted, 4 inheritable. Raises CapabilityError."""
    caps = [0] * _ROOM
    for clause in text.split():
        end = next((at for at, letter in enumerate(clause) if letter in "=+-"), -1)
        if end < 0:
            raise CapabilityError
        numbers = _numbers(clause[:end]) if end else list(range(len(NAMES)))
        # without names there is one action only, and it sets
        if not end and (clause[0] != "=" or "+" in clause or "-" in clause):
            raise CapabilityError
        _apply(caps, numbers, clause[end:])
    return caps


def _numbers(names: str) -> list[int]:
    found: list[int] = []
    for name in names.split(","):
        name = name.lower()
        if name == "all":
            # those before it don't count, those behind it do
            found = list(range(len(NAMES)))
            continue
        number = _NUMBERS.get(name)
        found.append(_number(name) if number is None else number)
    return found


def _number(text: str) -> int:
    base = 16 if text[:2] == "0x" else 8 if text[:1] == "0" else 10
    try:
        if not text[:1].isdigit() or "_" in text:
            raise ValueError
        value = int(text, base)
    except ValueError:
        raise CapabilityError from None
    if value >= _ROOM:
        raise CapabilityError
    return value


def _apply(caps: list[int], numbers: list[int], actions: str) -> None:
    at = 0
    while at < len(actions):
        sign = actions[at]
        if sign not in "=+-" or (sign == "=" and at):
            raise CapabilityError
        at += 1
        flags = 0
        start = at
        while at < len(actions) and actions[at] in _FLAGS:
            flags |= _FLAGS[actions[at]]
            at += 1
        if at == start and sign != "=":
            raise CapabilityError
        for number in numbers:
            if sign == "=":
                caps[number] = flags
            elif sign == "+":
                caps[number] |= flags
            else:
                caps[number] &= ~flags


def text_of(caps: list[int]) -> str:
    """The shortest text: what most have first, then who has more or less than that."""
    named = caps[: len(NAMES)]
    counts = [named.count(flags) for flags in range(8)]
    base = max(range(8), key=lambda flags: (counts[flags], flags == 0, -flags))
    parts = [f"={_letters(base)}"] if base else []
    for flags in range(7, -1, -1):
        names = [NAMES[number] for number, has in enumerate(named) if has == flags]
        if flags == base or not names:
            continue
        more, less = flags & ~base, base & ~flags
        sign = "+" if parts else "="
        parts.append(
            ",".join(names) + (f"{sign}{_letters(more)}" if more else "") + (f"-{_letters(less)}" if less else "")
        )
    if not parts:
        parts.append("=")
    for flags in range(7, 0, -1):
        beyond = [str(number) for number in range(len(NAMES), _ROOM) if caps[number] == flags]
        if beyond:
            parts.append(f"{','.join(beyond)}+{_letters(flags)}")
    return " ".join(parts)


def _letters(flags: int) -> str:
    return "".join(letter for letter, bit in (("e", _E), ("i", _I), ("p", _P)) if flags & bit)


def unpack(value: bytes) -> list[int]:
    """What an attribute says. Raises GuestError EINVAL."""
    magic = int.from_bytes(value[:4], "little")
    revision = magic >> 24
    words = _WORDS.get(revision)
    if words is None or len(value) != 4 + 8 * words + (4 if revision == 3 else 0):
        raise GuestError(errno.EINVAL)
    permitted = inheritable = 0
    for word in range(words):
        low, high = struct.unpack_from("<II", value, 4 + 8 * word)
        permitted |= low << 32 * word
        inheritable |= high << 32 * word
    caps = []
    for number in range(_ROOM):
        flags = (_P if permitted >> number & 1 else 0) | (_I if inheritable >> number & 1 else 0)
        caps.append(flags | _E if flags and magic & _EFFECTIVE else flags)
    return caps


def pack(caps: list[int]) -> bytes:
    """An attribute of revision 2. Files have one flag for all that is effective: GuestError EINVAL when what is
    permitted or inheritable is effective in part."""
    held = [flags for flags in caps if flags & (_P | _I)]
    effective = any(flags & _E for flags in caps)
    if effective and not all(flags & _E for flags in held):
        raise GuestError(errno.EINVAL)
    permitted = sum(1 << number for number, flags in enumerate(caps) if flags & _P)
    inheritable = sum(1 << number for number, flags in enumerate(caps) if flags & _I)
    words = [(sets >> 32 * word) & 0xFFFFFFFF for word in (0, 1) for sets in (permitted, inheritable)]
    return struct.pack("<5I", 0x02000000 | (_EFFECTIVE if effective else 0), *words)


# ---- of files


def get(tree: Tree, path: bytes) -> str:
    """The capabilities of a file in the guest as text, "" without any. Raises GuestError."""
    place = tree.resolve(path)
    value = place.mount.fs.xattrs(place.number).get(ATTRIBUTE)
    return "" if value is None else text_of(unpack(value))


def put(tree: Tree, path: bytes, text: str) -> None:
    """Give a regular file other capabilities. Raises CapabilityError for the text, GuestError EINVAL."""
    caps = parse(text)
    shown = path.decode("utf-8", "surrogateescape")
    if not _stat.S_ISREG(tree.stat(path, follow=False).mode):
        raise GuestError(errno.EINVAL, shown)
    try:
        value = pack(caps)
    except GuestError as error:
        raise GuestError(error.errno or errno.EINVAL, shown) from error
    tree.set_xattr(path, ATTRIBUTE, value)
