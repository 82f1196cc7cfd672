"""POSIX access control lists: the text form of acl(5) and the bytes of system.posix_acl_access and _default.

The bytes are Linux': a version (2), then entries of tag, permissions and id (struct posix_acl_xattr_entry). Ids are
shown as numbers, as names mean nothing outside of the guest.
"""

from __future__ import annotations

import errno
import os
import stat as _stat
import struct

from .filesystem.base import GuestError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .tree import Tree

    Ids = Callable[[bytes, bool], int | None]

ACCESS = b"system.posix_acl_access"
DEFAULT = b"system.posix_acl_default"

USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER = 1, 2, 4, 8, 16, 32
_NO_ID = 0xFFFFFFFF
_WORDS = {
    USER_OBJ: "user", USER: "user", GROUP_OBJ: "group", GROUP: "group", MASK: "mask", OTHER: "other",
}  # fmt: skip
_TAGS = {
    b"user": USER, b"u": USER, b"group": GROUP, b"g": GROUP, b"mask": MASK, b"m": MASK, b"other": OTHER, b"o": OTHER,
}  # fmt: skip
_BITS = {ord("r"): 4, ord("w"): 2, ord("x"): 1}
_BLANKS = b" \t\r\n"
#: more does not fit into an attribute
MAX_ENTRIES = 8191


class AclError(ValueError):
    """A text that is no access control list; ``errno`` as the field's library has it."""

    def __init__(self, number: int) -> None:
        super().__init__(os.strerror(number))
        self.errno = number


class Entry:
    """``tag`` of the entry, ``perm`` 0 to 7, ``ident`` of a USER or GROUP."""

    __slots__ = ("ident", "perm", "tag")

    def __init__(self, tag: int, perm: int, ident: int = _NO_ID) -> None:
        self.tag = tag
        self.perm = perm
        self.ident = ident


def unpack(value: bytes) -> list[Entry]:
    """The entries in an attribute's value. Raises GuestError EINVAL."""
    if len(value) < 4 or (len(value) - 4) % 8 or value[:4] != b"\2\0\0\0":
        raise GuestError(errno.EINVAL)
    found = [Entry(tag, perm, ident) for tag, perm, ident in struct.iter_unpack("<HHI", value[4:])]
    if any(one.tag not in _WORDS or one.perm & ~7 for one in found):
        raise GuestError(errno.EINVAL)
    return found


def pack(entries: list[Entry]) -> bytes:
    """An attribute's value, entries in the order that the kernel wants."""
    rows = sorted(entries, key=lambda one: (one.tag, one.ident if one.tag in (USER, GROUP) else 0))
    return b"\2\0\0\0" + b"".join(
        struct.pack("<HHI", one.tag, one.perm, one.ident if one.tag in (USER, GROUP) else _NO_ID) for one in rows
    )


def check(entries: list[Entry]) -> None:
    """What the kernel wants of a list: one entry each of owner, group and others, a mask when somebody is named, and
    nobody named twice with different tags. Raises GuestError EINVAL."""
    tags = [one.tag for one in entries]
    if any(tags.count(tag) != 1 for tag in (USER_OBJ, GROUP_OBJ, OTHER)) or tags.count(MASK) > 1:
        raise GuestError(errno.EINVAL)
    if (USER in tags or GROUP in tags) and MASK not in tags:
        raise GuestError(errno.EINVAL)
    if any(one.tag in (USER, GROUP) and one.ident == _NO_ID for one in entries):
        raise GuestError(errno.EINVAL)


def of_mode(mode: int) -> list[Entry]:
    """The list that says what permission bits say."""
    return [Entry(USER_OBJ, mode >> 6 & 7), Entry(GROUP_OBJ, mode >> 3 & 7), Entry(OTHER, mode & 7)]


def text_of(entries: list[Entry]) -> str:
    """The long text form, a line for each entry; what a mask takes away is told behind the entry."""
    mask = next((one.perm for one in entries if one.tag == MASK), 7)
    lines = []
    for one in entries:
        who = str(one.ident) if one.tag in (USER, GROUP) else ""
        line = f"{_WORDS[one.tag]}:{who}:{_letters(one.perm)}"
        if one.tag in (USER, GROUP_OBJ, GROUP) and one.perm & ~mask:
            line += f"\t#effective:{_letters(one.perm & mask)}"
        lines.append(line + "\n")
    return "".join(lines)


def _letters(perm: int) -> str:
    return "".join(letter if perm & bit else "-" for letter, bit in (("r", 4), ("w", 2), ("x", 1)))


def parse(text: bytes, ids: Ids | None = None) -> list[Entry]:
    """The entries of a long or short text form. ``ids(name, group)`` gives the number of a name, None without one.

    Raises AclError EINVAL, ENOENT for a name that nobody has.
    """
    found = []
    plain = b"\n".join(line.partition(b"#")[0].rstrip(_BLANKS) for line in text.split(b"\n"))
    # one comma, or blanks, or both stand between entries; a comma before blanks may be the last of all
    for at, part in enumerate(parts := plain.split(b",")):
        words = _entries_of(part)
        if not words and (at < len(parts) - 1 or not at) and text:
            raise AclError(errno.EINVAL)
        found += [_entry(word, ids) for word in words]
        if len(found) > MAX_ENTRIES:
            raise AclError(errno.EINVAL)
    return found


def _entries_of(part: bytes) -> list[bytes]:
    """Entries between blanks; blanks may also follow a tag or come before an id."""
    words: list[bytes] = []
    for word in part.split():
        # "u :5:rx" and "u: 5:rx" are one entry
        if words and (word.startswith(b":") or (words[-1].endswith(b":") and words[-1].count(b":") == 1)):
            words[-1] += word
        else:
            words.append(word)
    return words


def _entry(word: bytes, ids: Ids | None) -> Entry:
    fields = word.split(b":")
    tag = _TAGS.get(fields[0])
    if tag is None:
        raise AclError(errno.EINVAL)
    if len(fields) == 2 and tag in (MASK, OTHER):
        fields.insert(1, b"")
    if len(fields) == 2:
        # a name without permissions
        number(fields[1], tag == GROUP, ids)
    if len(fields) != 3:
        raise AclError(errno.EINVAL)
    who = fields[1]
    if tag in (MASK, OTHER) and who:
        raise AclError(errno.EINVAL)
    if who:
        ident = number(who, tag == GROUP, ids)
        return Entry(tag, _permissions(fields[2]), ident)
    return Entry({USER: USER_OBJ, GROUP: GROUP_OBJ}.get(tag, tag), _permissions(fields[2]))


def _permissions(text: bytes) -> int:
    if not 1 <= len(text) <= 3:
        raise AclError(errno.EINVAL)
    perm = 0
    for letter in text:
        bit = _BITS.get(letter, 0)
        if (not bit and letter != ord("-")) or perm & bit:
            raise AclError(errno.EINVAL)
        perm |= bit
    return perm


def number(text: bytes, group: bool, ids: Ids | None) -> int:
    """An id as C writes numbers, or a name's. Raises AclError ENOENT."""
    digits = text.removeprefix(b"+")
    try:
        base = 16 if digits[:2].lower() == b"0x" else 8 if digits[:1] == b"0" else 10
        if not digits[:1].isdigit() or b"_" in digits:
            raise ValueError
        value = int(digits, base)
    except ValueError:
        found = ids(text, group) if ids is not None else None
        if found is None:
            raise AclError(errno.ENOENT) from None
        return found
    if value >= _NO_ID:
        raise AclError(errno.EINVAL)
    return value


# ---- of files


def get(tree: Tree, path: bytes, *, default: bool) -> str:
    """The list of a file in the guest as text; a file without one has what its mode says, a directory without a
    default list has none (""). Raises GuestError EACCES for the default list of what is no directory."""
    place = tree.resolve(path)
    mode = place.stat().mode
    if default and not _stat.S_ISDIR(mode):
        raise GuestError(errno.EACCES, path.decode("utf-8", "surrogateescape"))
    value = place.mount.fs.xattrs(place.number).get(DEFAULT if default else ACCESS)
    if value is None:
        return "" if default else text_of(of_mode(mode))
    return text_of(unpack(value))


def put(tree: Tree, path: bytes, text: bytes, *, default: bool) -> None:
    """Give a file another list. Raises AclError for the text, GuestError EINVAL, EACCES, EOPNOTSUPP."""
    entries = parse(text, names_of(tree))
    shown = path.decode("utf-8", "surrogateescape")
    place = tree.resolve(path)
    if default and not _stat.S_ISDIR(place.stat().mode):
        raise GuestError(errno.EACCES, shown)
    if default and not entries:
        forget_default(tree, path)
        return
    try:
        check(entries)
    except GuestError as error:
        raise GuestError(error.errno or errno.EINVAL, shown) from error
    if place.mount.fs.kind in ("vfat", "iso9660"):
        raise GuestError(errno.EOPNOTSUPP, shown)
    if not default and len(entries) == 3:
        # no more than a mode says: the kernel stores none either
        _remove(tree, path, ACCESS)
        perm = {one.tag: one.perm for one in entries}
        bits = perm[USER_OBJ] << 6 | perm[GROUP_OBJ] << 3 | perm[OTHER]
        tree.set_attributes(path, mode=place.stat().mode & 0o7000 | bits)
        return
    tree.set_xattr(path, DEFAULT if default else ACCESS, pack(entries))


def forget_default(tree: Tree, path: bytes) -> None:
    """Take a directory's default list away, if it has one."""
    _remove(tree, path, DEFAULT)


def _remove(tree: Tree, path: bytes, name: bytes) -> None:
    place = tree.resolve(path)
    if name in place.mount.fs.xattrs(place.number):
        tree.remove_xattr(path, name)


def names_of(tree: Tree) -> Ids:
    """Looks names up in the guest's own /etc/passwd and /etc/group."""

    def find(name: bytes, group: bool) -> int | None:
        try:
            data = tree.read(b"/etc/group" if group else b"/etc/passwd", 0, 1 << 20)
        except GuestError:
            return None
        for line in data.split(b"\n"):
            fields = line.split(b":")
            if len(fields) > 2 and fields[0] == name and fields[2].isdigit():
                return int(fields[2]) & _NO_ID
        return None

    return find
