"""fstab(5): which device belongs where, in the guest's names of devices made ours."""

from __future__ import annotations

import re

from .release import lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .access import Files, Guest

MAX_ENTRIES = 1000

_OCTAL = re.compile(r"\\([0-7]{3})")
_DISK = re.compile(r"/dev/(?:h|s|v|xv|ub)d([a-z]{1,3})(\d{0,3})$")
_NUMBERED = re.compile(r"/dev/(?:nvme(\d{1,3})n1|mmcblk(\d{1,3})|cciss/c\d{1,2}d(\d{1,3}))(?:p(\d{1,3}))?$")
_MAPPER = re.compile(r"/dev/mapper/((?:[^-]|--)+)-((?:[^-]|--)+)$")
_BY = {"uuid": "UUID", "label": "LABEL", "partuuid": "PARTUUID", "partlabel": "PARTLABEL"}
_IGNORED = ("/dev/fd", "/dev/floppy", "/dev/cdrom", "/dev/sr", "/dev/dvd", "/dev/loop", "/dev/pts", "/dev/shm")


def read_fstab(files: Files, guest: Guest, root: str) -> tuple[list[tuple[str, str]], list[str]]:
    """((path, device) …, swap devices …) in the file's order. The root file system is ``root`` whatever it is called
    there; tags that no device has, network file systems and the kernel's own are left out."""
    mounts: list[tuple[str, str]] = []
    swaps: list[str] = []
    for line in lines(files, "/etc/fstab")[:MAX_ENTRIES]:
        words = line.split()
        if len(words) < 2 or words[0].startswith("#"):
            continue
        spec, path = (_OCTAL.sub(lambda found: chr(int(found[1], 8) & 0xFF), word) for word in words[:2])
        kind = words[2] if len(words) > 2 else ""
        options = words[3].split(",") if len(words) > 3 else []
        if "bind" in options or "rbind" in options or spec.startswith(_IGNORED):
            continue
        path = "/" + "/".join(part for part in path.split("/") if part not in ("", ".")) if path[:1] == "/" else path
        if path == "/":
            device: str | None = root
        else:
            device = resolve(spec, guest, root)
        if device is None:
            continue
        if path == "swap" or kind == "swap":
            if device not in swaps:
                swaps.append(device)
        elif path.startswith("/") and "/../" not in path + "/" and all(path != other for other, _ in mounts):
            mounts.append((path, device))
    if all(path != "/" for path, _ in mounts):
        mounts.insert(0, ("/", root))
    return mounts, swaps


def resolve(spec: str, guest: Guest, root: str) -> str | None:
    """Our name of the device that fstab names, None when there is none."""
    tag, equals, value = spec.partition("=")
    if equals and tag in _BY.values():
        return guest.tagged(tag, value.strip("\"'"))
    if not spec.startswith("/dev/"):
        return None
    if spec == "/dev/root":
        return root
    if spec.startswith("/dev/disk/by-"):
        name, _, value = spec[len("/dev/disk/by-") :].partition("/")
        if name in _BY:
            value = re.sub(r"\\x([0-9a-fA-F]{2})", lambda found: chr(int(found[1], 16)), value)
            return guest.tagged(_BY[name], value)
        # by-id and by-path say the number of the partition; with one disk that is enough
        found = re.search(r"-part(\d{1,3})$", value)
        disks = guest.disks()
        if len(disks) == 1:
            device = disks[0] + (found[1] if found else "")
            return device if guest.exists(device) else None
        return None
    mapped = _MAPPER.match(spec)
    if mapped is not None:
        device = f"/dev/{mapped[1].replace('--', '-')}/{mapped[2].replace('--', '-')}"
        return device if guest.exists(device) else guest.canonical(spec)
    found = _DISK.match(spec)
    if found is not None:
        return _disk(_index(found[1]), found[2], spec, guest)
    found = _NUMBERED.match(spec)
    if found is not None:
        return _disk(int(found[1] or found[2] or found[3] or 0), found[4] or "", spec, guest)
    return guest.canonical(spec)


def _index(letters: str) -> int:
    number = 0
    for letter in letters:
        number = number * 26 + ord(letter) - 96
    return number - 1


def _disk(index: int, part: str, spec: str, guest: Guest) -> str:
    """The disk of that number, whatever the guest's driver calls it."""
    disks = guest.disks()
    if index >= len(disks):
        return spec
    return disks[index] + part
