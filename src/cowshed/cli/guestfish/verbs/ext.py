"""What is done to ext2, ext3 and ext4 alone: their parameters, their files' flags, their free space."""

from __future__ import annotations

import errno
import os

from ....errors import CowshedError, OptionError
from ....guest.filesystem.base import GuestError
from ....guest.filesystem.table import kind_of
from ..fish import Failed, Fish
from ..table import command
from .device import opened

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from ....guest.filesystem.ext.filesystem import ExtFileSystem
    from ....guest.filesystem.ext.inode import Inode
    from ....guest.place import Place

KINDS = ("ext2", "ext3", "ext4")


class Ext:
    """``with`` it: the ext file system of a device, mounted or not; what changed is synced, or forgotten."""

    def __init__(self, fish: Fish, device: str, name: str, program: str) -> None:
        self.fish = fish
        self.device = device
        self.node = opened(fish, device, name)
        self.mounted = fish.session.mounted(device)
        self.program = program

    def __enter__(self) -> ExtFileSystem:
        from ....guest.filesystem.ext.filesystem import ExtFileSystem

        if self.mounted is not None:
            if not isinstance(self.mounted, ExtFileSystem):
                raise self.foreign()
            self.fs = self.mounted
            return self.fs
        if kind_of(self.node) not in KINDS:
            raise self.foreign()
        self.fs = ExtFileSystem(self.node, writable=not self.node.read_only)
        return self.fs

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            if error is None and self.fs.writable:
                self.fs.sync()
                self.node.flush()
            else:
                self.fs.discard_changes()
        finally:
            if self.mounted is None:
                self.fs.close()

    def foreign(self) -> Failed:
        return Failed(f"{self.program}: Bad magic number in super-block while trying to open {self.device}")


@command("tune2fs-l", "device:device", "hash", help="get ext2/ext3/ext4 superblock details")
def tune2fs_l(fish: Fish, device: str) -> Iterator[tuple[str, str]]:
    from ....guest.filesystem.ext import superblock
    from ....guest.filesystem.ext.describe import describe
    from ....guest.filesystem.ext.filesystem import ExtFileSystem

    node = opened(fish, device, "tune2fs_l")
    mounted = fish.session.mounted(device)
    if isinstance(mounted, ExtFileSystem):
        sb = mounted.sb
    elif kind_of(node) not in KINDS:
        raise Failed(f"tune2fs: Bad magic number in super-block while trying to open {device}")
    else:
        sb, _ = superblock.load(node)
    for name, value in describe(sb):
        yield name, "" if value in ("<none>", "<not available>") else value


@command(
    "tune2fs",
    "device:device [force:bool] [maxmountcount:int] [mountcount:int] [errorbehavior:string] [group:int64] "
    "[intervalbetweenchecks:int] [reservedblockspercentage:int] [lastmounteddirectory:string] "
    "[reservedblockscount:int64] [user:int64]",
    help="adjust ext2/ext3/ext4 filesystem parameters",
)
def tune2fs(
    fish: Fish,
    device: str,
    force: bool = False,
    maxmountcount: int | None = None,
    mountcount: int | None = None,
    errorbehavior: str | None = None,
    group: int | None = None,
    intervalbetweenchecks: int | None = None,
    reservedblockspercentage: int | None = None,
    lastmounteddirectory: str | None = None,
    reservedblockscount: int | None = None,
    user: int | None = None,
) -> None:
    import time

    from ....guest.filesystem.ext.tune import BEHAVIORS, tune

    opened(fish, device, "tune2fs")
    numbers = {
        "maxmountcount": maxmountcount, "mountcount": mountcount, "group": group,
        "intervalbetweenchecks": intervalbetweenchecks, "reservedblockspercentage": reservedblockspercentage,
        "reservedblockscount": reservedblockscount, "user": user,
    }  # fmt: skip
    for name, value in numbers.items():
        if value is not None and value < 0:
            raise Failed(f"{name} cannot be negative")
    if errorbehavior is not None and errorbehavior not in BEHAVIORS:
        raise Failed(f"invalid errorbehavior parameter: {errorbehavior}")
    if errorbehavior is None and lastmounteddirectory is None and all(one is None for one in numbers.values()):
        raise Failed(f"{device}: no parameter is given")
    with Ext(fish, device, "tune2fs", f"{device}: tune2fs") as fs:
        try:
            tune(
                fs,
                time.time_ns(),
                max_mounts=maxmountcount,
                mounts=mountcount,
                errors=errorbehavior,
                gid=group,
                uid=user,
                interval=intervalbetweenchecks,
                reserved_percent=reservedblockspercentage,
                reserved_blocks=reservedblockscount,
                last_mounted=lastmounteddirectory,
            )
        except OptionError as error:
            raise Failed(f"{device}: {error}") from error


def _flagged(
    fish: Fish, file: bytes, program: str, refusal: str = "While reading flags on", number: int = errno.ENOTTY
) -> tuple[ExtFileSystem, Place]:
    """The file system and the place of a file whose flags are asked for; a link is not followed. ``refusal`` and
    ``number``: what is said of other file systems."""
    from ....guest.filesystem.ext.filesystem import ExtFileSystem

    shown = os.fsdecode(file)
    try:
        place = fish.session.tree.resolve(file, follow=False)
    except GuestError as error:
        reason = os.strerror(error.errno or errno.EIO)
        raise Failed(f"{program}: {shown}: {program}: {reason} while trying to stat /sysroot{shown}") from error
    if not isinstance(place.mount.fs, ExtFileSystem):
        raise Failed(
            f"{program}: {shown}: {program}: {os.strerror(number)} {refusal} /sysroot{shown}"
        )
    return place.mount.fs, place


@command("get-e2attrs", "file:path", "string", help="get ext2 file attributes of a file")
def get_e2attrs(fish: Fish, file: bytes) -> str:
    from ....guest.filesystem.ext.tune import attributes

    fs, place = _flagged(fish, file, "lsattr")
    try:
        return attributes(fs, place.number)
    except GuestError as error:
        shown = os.fsdecode(file)
        raise Failed(
            f"lsattr: {shown}: lsattr: {os.strerror(error.errno or 0)} While reading flags on /sysroot{shown}"
        ) from error


@command("set-e2attrs", "file:path attrs:string [clear:bool]", help="set ext2 file attributes of a file")
def set_e2attrs(fish: Fish, file: bytes, attrs: str, clear: bool = False) -> None:
    import time

    from ....guest.filesystem.ext.tune import CHANGEABLE, set_attributes

    for index, letter in enumerate(attrs):
        if not (letter.isascii() and letter.isalpha()):
            raise Failed(f"unknown file attribute '{letter}'")
        if letter in attrs[:index]:
            raise Failed(f"duplicate file attribute '{letter}'")
    shown = os.fsdecode(file)
    for letter in attrs:
        if letter not in CHANGEABLE:
            raise Failed(f"chattr: {shown}: the attribute '{letter}' can't be changed")
    fs, place = _flagged(fish, file, "chattr")
    try:
        fish.session.tree.writing(place, file)
        set_attributes(fs, place.number, attrs, time.time_ns(), clear=clear)
    except GuestError as error:
        raise Failed(
            f"chattr: {shown}: chattr: {os.strerror(error.errno or 0)} while setting flags on /sysroot{shown}"
        ) from error


def _versioned(fish: Fish, file: bytes, program: str, words: str) -> tuple[ExtFileSystem, Inode]:
    """The file system and the inode of a file or a directory, which alone can be asked. Raises Failed."""
    fs, place = _flagged(fish, file, program, words, errno.EOPNOTSUPP)
    inode = fs.inodes.live(place.number)
    if not (inode.is_file or inode.is_dir):
        shown = os.fsdecode(file)
        raise Failed(f"{program}: {shown}: {program}: {os.strerror(errno.EOPNOTSUPP)} {words} /sysroot{shown}")
    return fs, inode


@command("get-e2generation", "file:path", "int", help="get ext2 file generation of a file")
def get_e2generation(fish: Fish, file: bytes) -> int:
    _, inode = _versioned(fish, file, "lsattr", "While reading flags on")
    return inode.generation


@command("set-e2generation", "file:path generation:int64", help="set ext2 file generation of a file")
def set_e2generation(fish: Fish, file: bytes, generation: int) -> None:
    import time

    from ....guest.filesystem.ext.tune import set_generation

    fs, inode = _versioned(fish, file, "chattr", "while reading flags on")
    try:
        fish.session.tree.writing(fish.session.tree.resolve(file, follow=False), file)
        set_generation(fs, inode.number, generation & 0xFFFFFFFF, time.time_ns())
    except GuestError as error:
        shown = os.fsdecode(file)
        raise Failed(
            f"chattr: {shown}: chattr: {os.strerror(error.errno or 0)} while setting version on /sysroot{shown}"
        ) from error


@command(
    "mklost-and-found", "mountpoint:path", help="make lost+found directory on an ext2/3/4 filesystem"
)
def mklost_and_found(fish: Fish, mountpoint: bytes) -> None:
    """With blocks for what a check may find: names are made in it until it has its direct blocks, and taken away."""
    tree = fish.session.tree
    path = mountpoint.rstrip(b"/") + b"/lost+found"
    try:
        place = tree.make(path, 0o40700)
    except GuestError as error:
        shown = os.fsdecode(mountpoint)
        raise Failed(f"cd /sysroot{shown} && mklost+found: command failed") from error
    block = place.mount.fs.block_size
    made = []
    # no name takes less room; where a directory's size says nothing of its blocks this ends all the same
    for number in range(12 * block // 240):
        if place.stat().size >= 12 * block:
            break
        made.append(path + b"/%0240d" % number)
        tree.open_file(made[-1])
    for name in made:
        tree.unlink(name)


@command("zerofree", "device:device", help="zero unused inodes and disk blocks on ext2/3 filesystem")
def zerofree(fish: Fish, device: str) -> None:
    from ....guest.filesystem.ext.zero import zero_free

    node = opened(fish, device, "zerofree")
    if fish.session.mounted(device) is not None:
        raise Failed(f"{device}: zerofree: filesystem {device} is mounted rw")
    if kind_of(node) not in KINDS:
        raise Failed(f"{device}: zerofree: failed to open filesystem {device}")
    with Ext(fish, device, "zerofree", "zerofree") as fs:
        zero_free(fs)


@command("zero-free-space", "directory:path", help="zero free space in a filesystem")
def zero_free_space(fish: Fish, directory: bytes) -> None:
    from ....guest.filesystem.ext.filesystem import ExtFileSystem
    from ....guest.filesystem.ext.zero import zero_free

    tree = fish.session.tree
    try:
        place = tree.directory(directory)
    except GuestError as error:
        raise Failed(f"open: /sysroot{os.fsdecode(directory)}: {os.strerror(error.errno or 0)}") from error
    fs = tree.writing(place, directory)
    if not isinstance(fs, ExtFileSystem):
        raise GuestError(errno.EOPNOTSUPP, hint=f"free space of {fs.kind} is not zeroed yet")
    fs.sync()
    try:
        zero_free(fs)
    except CowshedError:
        fs.discard_changes()
        raise


def _resized(fish: Fish, device: str, name: str, size: int | None) -> None:
    """To ``size`` bytes, or to all of the device."""
    from ....guest.filesystem.ext.resize import resize

    opened(fish, device, name)
    with Ext(fish, device, name, "resize2fs") as fs:
        try:
            resize(fs, None if size is None else size // fs.block_size)
        except OptionError as error:
            why = f" ({error.hint})" if error.hint else ""
            raise Failed(f"{error}{why}") from error
    fish.session.devices.forget()


@command("resize2fs", "device:device", help="resize an ext2, ext3 or ext4 filesystem")
def resize2fs(fish: Fish, device: str) -> None:
    _resized(fish, device, "resize2fs", None)


@command("resize2fs-size", "device:device size:int64", help="resize an ext2, ext3 or ext4 filesystem (with size)")
def resize2fs_size(fish: Fish, device: str, size: int) -> None:
    if size & 1023:
        raise Failed(f"{size}: size must be a round number of kilobytes")
    _resized(fish, device, "resize2fs_size", size)


#: bytes for which there is an inode, by mke2fs.conf's name of what a file system is used for
_USAGES = {
    "floppy": 8192, "small": 4096, "big": 32768, "huge": 65536, "news": 4096, "largefile": 1 << 20,
    "largefile4": 4 << 20,
}  # fmt: skip
#: feature by the name of the option that takes it in or leaves it out
_FEATURES = {
    "extent": "extent", "filetype": "filetype", "flexbg": "flex_bg", "hasjournal": "has_journal",
    "largefile": "large_file", "resizeinode": "resize_inode", "sparsesuper": "sparse_super", "uninitbg": "uninit_bg",
}  # fmt: skip


@command(
    "mke2fs",
    "device:device [blockscount:int64] [blocksize:int64] [fragsize:int64] [blockspergroup:int64] "
    "[numberofgroups:int64] [bytesperinode:int64] [inodesize:int64] [journalsize:int64] [numberofinodes:int64] "
    "[stridesize:int64] [stripewidth:int64] "
    "[maxonlineresize:int64] [reservedblockspercentage:int] [mmpupdateinterval:int] [journaldevice:string] "
    "[label:string] [lastmounteddir:string] [creatoros:string] [fstype:string] [usagetype:string] [uuid:string] "
    "[forcecreate:bool] [writesbandgrouponly:bool] [lazyitableinit:bool] [lazyjournalinit:bool] [testfs:bool] "
    "[discard:bool] [quotatype:bool] [extent:bool] [filetype:bool] [flexbg:bool] [hasjournal:bool] "
    "[journaldev:bool] [largefile:bool] [quota:bool] [resizeinode:bool] [sparsesuper:bool] [uninitbg:bool]",
    help="create an ext2/ext3/ext4 filesystem on device",
)
def mke2fs(
    fish: Fish,
    device: str,
    blockscount: int | None = None,
    blocksize: int | None = None,
    fragsize: int | None = None,
    blockspergroup: int | None = None,
    numberofgroups: int | None = None,
    bytesperinode: int | None = None,
    inodesize: int | None = None,
    journalsize: int | None = None,
    numberofinodes: int | None = None,
    stridesize: int | None = None,
    stripewidth: int | None = None,
    maxonlineresize: int | None = None,
    reservedblockspercentage: int | None = None,
    mmpupdateinterval: int | None = None,
    journaldevice: str | None = None,
    label: str | None = None,
    lastmounteddir: str | None = None,
    creatoros: str | None = None,
    fstype: str | None = None,
    usagetype: str | None = None,
    uuid: str | None = None,
    forcecreate: bool | None = None,
    writesbandgrouponly: bool | None = None,
    lazyitableinit: bool | None = None,
    lazyjournalinit: bool | None = None,
    testfs: bool | None = None,
    discard: bool | None = None,
    quotatype: bool | None = None,
    extent: bool | None = None,
    filetype: bool | None = None,
    flexbg: bool | None = None,
    hasjournal: bool | None = None,
    journaldev: bool | None = None,
    largefile: bool | None = None,
    quota: bool | None = None,
    resizeinode: bool | None = None,
    sparsesuper: bool | None = None,
    uninitbg: bool | None = None,
) -> None:
    given: dict[str, Any] = {
        name: value for name, value in locals().items() if value is not None and name not in ("fish", "device")
    }
    from ....guest.filesystem.ext import make

    node = opened(fish, device, "mke2fs")
    if fish.session.mounted(device) is not None:
        raise Failed(f"{device}: {device} is mounted; will not make a filesystem here!")
    if fish.session.user(device) is not None:
        raise Failed(f"{device}: {device} is apparently in use by the system; will not make a filesystem here!")
    kind = given.get("fstype", "ext2")
    if kind not in KINDS:
        raise Failed(f"{kind}: not a valid extended filesystem type")
    for name in ("journaldevice", "journaldev", "writesbandgrouponly", "quota", "quotatype"):
        if given.get(name):
            raise Failed(f"{device}: {name} is not possible")
    for name, value in given.items():
        if isinstance(value, int) and value < 0:
            raise Failed(f"{name} must be >= 0")
    size = given.get("blocksize")
    if given.get("fragsize") not in (None, size):
        raise Failed(f"{device}: fragments are as large as blocks, fragsize is not possible")
    features = [("" if given[name] else "^") + _FEATURES[name] for name in _FEATURES if name in given]
    if "journalsize" in given and "hasjournal" not in given:
        features.append("has_journal")
    if given.get("uninitbg") is True:
        # metadata_csum includes it
        features.remove("uninit_bg")
        features += [] if kind == "ext4" else ["uninit_bg"]
    count = given.get("blockscount")
    guess = size or (1024 if (node.size if count is None else count * 1024) < 512 << 20 else 4096)
    percent = given.get("reservedblockspercentage")
    label = given.get("label")
    try:
        make(
            node,
            kind,
            block_size=size,
            size=None if count is None else count * guess,
            label=None if label is None else os.fsdecode(os.fsencode(label)[:16]),
            uuid=given.get("uuid"),
            features=",".join(features),
            inode_size=given.get("inodesize"),
            inode_ratio=given.get("bytesperinode", _USAGES.get(given.get("usagetype", ""))),
            inodes=given.get("numberofinodes"),
            reserved_percent=percent,
            journal_megabytes=given.get("journalsize"),
            blocks_per_group=given.get("blockspergroup"),
            flex_groups=given.get("numberofgroups"),
            stride=given.get("stridesize"),
            stripe_width=given.get("stripewidth"),
            most_blocks=given.get("maxonlineresize"),
            last_mounted=given.get("lastmounteddir"),
            creator=given.get("creatoros"),
            test=given.get("testfs"),
        )
    except OptionError as error:
        raise Failed(f"{device}: {error}") from error
    node.flush()
    fish.session.devices.forget()


def _checked(fish: Fish, device: str, name: str, *, force: bool, yes: bool = False) -> tuple[int, str]:
    """e2fsck's exit code, and what it would have said."""
    from ....guest.filesystem.ext.check import check
    from ....guest.filesystem.ext.filesystem import ExtFileSystem

    node = opened(fish, device, name)
    if fish.session.mounted(device) is not None:
        return 8, f"{device} is mounted.\ne2fsck: Cannot continue, aborting."
    if kind_of(node) not in KINDS:
        return 8, f"e2fsck: Bad magic number in super-block while trying to open {device}"
    try:
        fs = ExtFileSystem(node, writable=not node.read_only)
    except CowshedError as first:
        # what is not written to can still be looked at
        try:
            fs = ExtFileSystem(node)
        except CowshedError:
            return 8, f"{device}: {first}"
        force = True
    try:
        code, problems = check(fs, force=force)
    except CowshedError as error:
        fs.discard_changes()
        return 4, f"{device}: {error}"
    finally:
        fs.close()
    if not node.read_only:
        node.flush()
    lines = [f"{device}: {problem}" for problem in problems]
    if code & 4:
        lines.append(f"{device}: UNEXPECTED INCONSISTENCY; RUN fsck MANUALLY.")
        if yes:
            lines.append("(damage is found, and not repaired here)")
    return code, "\n".join(lines)


@command("e2fsck", "device:device [correct:bool] [forceall:bool]", help="check an ext2/ext3 filesystem")
def e2fsck(fish: Fish, device: str, correct: bool = False, forceall: bool = False) -> None:
    if correct and forceall:
        raise Failed("only one of the options 'correct', 'forceall' may be specified")
    opened(fish, device, "e2fsck")
    if not correct and not forceall and fish.session.mounted(device) is None:
        raise Failed("e2fsck: need terminal for interactive repairs")
    code, said = _checked(fish, device, "e2fsck", force=True, yes=forceall)
    if code >= 2:
        raise Failed(said)


@command("e2fsck-f", "device:device", help="check an ext2/ext3 filesystem")
def e2fsck_f(fish: Fish, device: str) -> None:
    code, said = _checked(fish, device, "e2fsck_f", force=True)
    if code >= 2:
        raise Failed(said)


@command("fsck", "fstype:string device:device", "hex", help="run the filesystem checker")
def fsck(fish: Fish, fstype: str, device: str) -> int:
    if fstype not in KINDS:
        raise Failed(f"{fstype}: file systems of this kind are not checked here")
    return _checked(fish, device, "fsck", force=False)[0]
