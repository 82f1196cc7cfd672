"""What the shell itself does: echo, glob, time, edit, disks made on the host, help and quit."""

from __future__ import annotations

import os

from ..arguments import Refused
from ..fish import Failed, Fish, Left, Yielded
from ..table import command, find
from .read import HostFailure, shown


@command("help", "cmd:words", help="display a list of commands or help on a command", local=True)
def help(fish: Fish, words: list[str]) -> None:
    from ..help import first, list_commands

    if len(words) > 1:
        raise Refused("use 'help', 'help <cmd>' or 'help -l|--list' to list all commands")
    if not words:
        first(fish.out)
    elif words[0] in ("-l", "--list"):
        list_commands(fish.out, None)
    elif list_commands(fish.out, words[0]):
        raise Quietly


class Quietly(Refused):
    """It failed, and all has been said."""


@command("quit exit q", "words:words", help="quit guestfish", local=True)
def quit(fish: Fish, words: list[str]) -> None:
    fish.session.tree.sync()
    raise Left


@command("man manual", help="read the manual", local=True)
def man(fish: Fish) -> None:
    fish.out.flush()
    os.system("man guestfish")


@command("echo", "params:words", help="display a line of text", local=True)
def echo(fish: Fish, words: list[str]) -> None:
    fish.out.write(" ".join(words) + "\n")


@command("glob", "command:words", help="expand wildcards in command", local=True)
def glob(fish: Fish, words: list[str]) -> None:
    from ....guest.search import glob as expand

    if not words:
        raise Refused("use 'glob command [args...]'")
    choices: list[list[str]] = []
    for word in words[1:]:
        if word.startswith("/") and not word.startswith("/dev/"):
            try:
                fish.need_running("glob_expand")
            except Failed as failed:
                fish.error(str(failed))
                raise Refused(f"glob: guestfs_glob_expand call failed: {word}") from failed
            fish.need_root("glob_expand")
            found = expand(fish.session.tree, os.fsencode(word), slash=False) if _magic(word) else []
            choices.append([shown(path) for path in found] or [word])
        elif word.startswith("/dev/") and _magic(word):
            import fnmatch

            devices = fish.session.devices
            known = [*devices.disks(), *devices.partitions(), *devices.volumes()]
            choices.append([name for name in known if fnmatch.fnmatchcase(name, word)])
        else:
            choices.append([word])
    import itertools

    for combination in itertools.product(*choices):
        if not fish.run([words[0], *combination]):
            raise Quietly


def _magic(word: str) -> bool:
    return any(char in word for char in "*?[{")


@command("time", "command:words", help="print elapsed time taken to run a command", local=True)
def time(fish: Fish, words: list[str]) -> None:
    from time import monotonic

    if not words:
        raise Refused("use 'time command [args...]'")
    start = monotonic()
    if not fish.run(words):
        raise Quietly
    fish.out.write(f"elapsed time: {monotonic() - start:.2f} seconds\n")


@command(
    "lcd", "directory:string", help="change working directory", local=True,
    misuse="use 'lcd directory' to change local directory",
)  # fmt: skip
def lcd(fish: Fish, directory: str) -> None:
    try:
        os.chdir(os.path.expanduser(directory))
    except OSError as error:
        fish.say(f"{directory}: {error.strerror}")
        raise Quietly from error


@command(
    "setenv", "var:string value:string", help="set an environment variable", local=True,
    misuse="use 'setenv VAR value' to set an environment variable",
)  # fmt: skip
def setenv(fish: Fish, var: str, value: str) -> None:
    os.environ[var] = value


@command(
    "unsetenv", "var:string", help="unset an environment variable", local=True,
    misuse="use 'unsetenv VAR' to unset an environment variable",
)  # fmt: skip
def unsetenv(fish: Fish, var: str) -> None:
    os.environ.pop(var, None)


@command(
    "reopen", help="close and reopen libguestfs handle", local=True, misuse="‘reopen’ command takes no parameters"
)  # fmt: skip
def reopen(fish: Fish) -> None:
    from ....guest.session import Session

    fish.session.close()
    fish.session = Session(readonly=fish.readonly)
    # settings are the handle's
    fish.facts = {name: value for name, value in fish.facts.items() if name in ("autosync", "path", "trace", "verbose")}


def _edit(fish: Fish, path: bytes, default: str) -> None:
    """Give a file's text to an editor and put what comes back in its place, with all else as it was."""
    import subprocess
    import tempfile

    tree = fish.session.tree
    data = tree.read(path)
    editor = default or os.environ.get("EDITOR") or "vi"
    # a suffix lets the editor see what kind of file it is
    name = path.rpartition(b"/")[2]
    suffix = os.fsdecode(b"-" + name.replace(b"\0", b"")) if len(name) < 100 else ""
    handle, copy = tempfile.mkstemp(prefix="guestfish", suffix=suffix)
    try:
        with open(handle, "wb") as file:
            file.write(data)
        before = os.stat(copy)
        fish.out.flush()
        with Yielded():
            status = subprocess.call(f"{editor} {_quoted(copy)}", shell=True)
        if status:
            raise Failed(f"editor exited with status {status}: the file is left as it was")
        with open(copy, "rb") as file:
            fresh = file.read()
        after = os.stat(copy)
        if fresh == data and (before.st_mtime_ns, before.st_ino) == (after.st_mtime_ns, after.st_ino):
            return
        if fresh != data:
            fish.session.replace(path, fresh)
    finally:
        try:
            os.unlink(copy)
        except FileNotFoundError:
            pass


def _quoted(name: str) -> str:
    import shlex

    return shlex.quote(name)


_EDIT = "use '{} filename' to edit a file"


@command("edit", "filename:path", help="edit a file", internal="download", misuse=_EDIT)
def edit(fish: Fish, filename: bytes) -> None:
    _edit(fish, filename, "")


@command("vi", "filename:path", help="edit a file with vi", internal="download", misuse=_EDIT)
def vi(fish: Fish, filename: bytes) -> None:
    _edit(fish, filename, "vi")


@command("emacs", "filename:path", help="edit a file with emacs", internal="download", misuse=_EDIT)
def emacs(fish: Fish, filename: bytes) -> None:
    _edit(fish, filename, "emacs")


def _page(fish: Fish, path: bytes, pager: str) -> None:
    import subprocess

    place = fish.session.tree.regular(path)
    fish.out.flush()
    reader = subprocess.Popen(pager, shell=True, stdin=subprocess.PIPE)
    assert reader.stdin is not None
    with Yielded():
        try:
            for piece in fish.session.tree.chunks(place):
                reader.stdin.write(piece)
            reader.stdin.close()
        except BrokenPipeError:
            pass
        reader.wait()


_PAGE = "use '{} filename' to page a file"


@command("more", "filename:path", help="view a file", internal="download", misuse=_PAGE)
def more(fish: Fish, filename: bytes) -> None:
    _page(fish, filename, os.environ.get("PAGER") or "more")


@command("less", "filename:path", help="view a file", internal="download", misuse=_PAGE)
def less(fish: Fish, filename: bytes) -> None:
    _page(fish, filename, "less")


@command("hexedit", "path:words", help="edit with a hex editor", local=True)
def hexedit(fish: Fish, words: list[str]) -> None:
    """Of a file, or of a part of it, through a copy on the host."""
    import subprocess
    import tempfile

    if not 1 <= len(words) <= 3:
        raise Refused("hexedit (device|filename) [max | start max]")
    fish.need_running("filesize")
    from ..arguments import number
    from ..table import Argument

    known = find("hexedit")
    assert known is not None
    sizes = [number(known, Argument("size:int64"), word) for word in words[1:]]
    start, count = (0, None) if not sizes else (0, sizes[0]) if len(sizes) == 1 else (sizes[0], sizes[1])
    editor = os.environ.get("HEXEDITOR", "hexedit")
    node = fish.session.devices.open(words[0]) if words[0].startswith("/dev/") else None
    path = os.fsencode(words[0])
    tree = fish.session.tree
    if node is not None:
        data = node.read(start, min(node.size - start, count if count is not None else node.size))
    else:
        data = tree.read(path, start, count)
    with tempfile.NamedTemporaryFile(prefix="guestfish") as file:
        file.write(data)
        file.flush()
        fish.out.flush()
        with Yielded():
            status = subprocess.call([*editor.split(), file.name])
        if status:
            raise Failed(f"{editor}: exited with an error")
        with open(file.name, "rb") as again:
            fresh = again.read()
    if fresh == data:
        return
    if len(fresh) != len(data):
        raise Failed("the editor changed the length: nothing is written")
    if node is not None:
        node.write(start, fresh)
        node.flush()
    else:
        tree.write_at(path, start, fresh)


@command("display", "filename:path", help="display an image", internal="download", misuse="display filename")
def display(fish: Fish, filename: bytes) -> None:
    import subprocess
    import tempfile

    program = os.environ.get("GUESTFISH_DISPLAY_IMAGE", "display")
    with tempfile.NamedTemporaryFile(prefix="guestfish") as file:
        for piece in fish.session.tree.chunks(fish.session.tree.regular(filename)):
            file.write(piece)
        file.flush()
        subprocess.call(f"{program} {_quoted(file.name)}", shell=True)


def _size(text: str) -> int:
    """Sizes of disks: plain numbers are bytes, with suffixes as everywhere."""
    from ..arguments import number
    from ..table import Argument

    known = find("alloc")
    assert known is not None
    try:
        if text.startswith("-"):
            number(known, Argument("size:int64"), "")
        return number(known, Argument("size:int64"), text)
    except Refused as refused:
        code = str(refused).rpartition(" ")[2]
        raise Refused(f"parse_size: invalid integer parameter (xstrtoull returned {code}") from refused


def _make_raw(filename: str, size: int, preallocation: str) -> None:
    """A raw image of just that many bytes. Raises HostFailure."""
    from .... import create
    from ....errors import HostError

    try:
        if os.path.isfile(filename):
            os.unlink(filename)
        create(filename, "raw", size=size, options={"preallocation": preallocation} if preallocation else None)
        os.truncate(filename, size)
    except (HostError, OSError) as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise HostFailure(f"cannot create raw file: {filename}: {reason}") from error


def _make_disk(fish: Fish, filename: str, size: str, preallocation: str) -> None:
    if fish.session.running:
        raise Failed("can't allocate or add disks after launching")
    _make_raw(filename, _size(size), preallocation)
    fish.session.add(filename, fmt="raw")


@command(
    "alloc allocate", "filename:string size:string", help="allocate and add a disk file", local=True,
    misuse="use '{} file size' to create an image",
)  # fmt: skip
def alloc(fish: Fish, filename: str, size: str) -> None:
    _make_disk(fish, filename, size, "falloc")


@command(
    "sparse", "filename:string size:string", help="create a sparse disk image and add", local=True,
    misuse="use 'sparse file size' to create a sparse image",
)  # fmt: skip
def sparse(fish: Fish, filename: str, size: str) -> None:
    _make_disk(fish, filename, size, "")


@command(
    "add-drive-scratch scratch",
    "size:int64 [name:string] [label:string] [blocksize:int]",
    help="add a temporary scratch drive",
    local=True,
)
def add_drive_scratch(
    fish: Fish, size: int, name: str = "", label: str | None = None, blocksize: int | None = None
) -> None:
    import tempfile

    if size <= 0:
        raise HostFailure(f"invalid size: {size}")
    if blocksize not in (None, 512, 4096):
        raise HostFailure("blocksize parameter is invalid")
    # the name may go at once: an open description of the file is enough
    handle, path = tempfile.mkstemp(prefix="cowshed-scratch-")
    try:
        os.ftruncate(handle, size)
        fish.session.add(path, fmt="raw", readonly=False, label=label, sector=blocksize)
        _ = fish.session.devices.drives[-1].node
    finally:
        os.close(handle)
        os.unlink(path)


@command(
    "disk-create",
    "filename:string format:string size:int64 [backingfile:string] [backingformat:string] [preallocation:string] "
    "[compat:string] [clustersize:int]",
    help="create a blank disk image",
    local=True,
)
def disk_create(
    fish: Fish,
    filename: str,
    format: str,
    size: int,
    backingfile: str | None = None,
    backingformat: str | None = None,
    preallocation: str | None = None,
    compat: str | None = None,
    clustersize: int | None = None,
) -> None:
    from .... import create

    if backingfile is not None and size != -1:
        raise HostFailure("if using a backing file, size must be passed as -1")
    if backingfile is None and size < 0:
        raise HostFailure(f"invalid size: {size}")
    if format not in ("raw", "qcow2"):
        raise HostFailure(f"unsupported format ‘{format}’")
    words = {"sparse": "off", "full": "full", "metadata": "metadata", "off": "off", None: None}
    if format == "raw":
        del words["metadata"]
        if backingfile is not None:
            raise HostFailure("backingfile cannot be used for raw format disks")
        given = {"backingformat": backingformat, "compat": compat, "clustersize": clustersize}
        for name, value in given.items():
            if value is not None:
                raise HostFailure(f"{name} parameter cannot be used with raw format")
    if preallocation not in words:
        raise HostFailure(f"invalid value for preallocation parameter ‘{preallocation}’")
    if format == "raw":
        _make_raw(filename, size, {"full": "full"}.get(preallocation or "", ""))
        return
    if backingformat is not None and not backingformat.isalnum():
        raise HostFailure(f"invalid value for backingformat parameter ‘{backingformat}’")
    if compat not in (None, "0.10", "1.1"):
        raise HostFailure(f"invalid value for compat parameter ‘{compat}’")
    if clustersize is not None and (not 512 <= clustersize <= 2 << 20 or clustersize & (clustersize - 1)):
        raise HostFailure(f"invalid value for clustersize parameter ‘{clustersize}’")
    options: dict[str, object] = {}
    if words[preallocation] is not None:
        options["preallocation"] = words[preallocation]
    if compat is not None:
        options["compat"] = compat
    if clustersize is not None:
        options["cluster_size"] = clustersize
    if backingfile is not None:
        options["backing_file"] = backingfile
        if backingformat is not None:
            options["backing_fmt"] = backingformat
    create(filename, format, size=None if size < 0 else size, options=options)


@command("disk-format", "filename:string", "string", help="detect the disk format of a disk image", local=True)
def disk_format(fish: Fish, filename: str) -> str:
    from .... import info

    return info(filename).format


@command("disk-virtual-size", "filename:string", "int", help="return virtual size of a disk", local=True)
def disk_virtual_size(fish: Fish, filename: str) -> int:
    from .... import info

    return info(filename).virtual_size


@command("disk-has-backing-file", "filename:string", "bool", help="return whether disk has a backing file", local=True)
def disk_has_backing_file(fish: Fish, filename: str) -> bool:
    from .... import info

    return info(filename).backing_filename is not None


#: what handlers are for; none of them happens here, so handlers are kept and listed only
_EVENTS = (
    "close", "subprocess_quit", "launch_done", "progress", "appliance", "library", "trace", "enter", "libvirt_auth",
    "warning",
)  # fmt: skip


class Handler:
    """``name``; ``number``: of its registration; ``events``: what it is for, as it is shown; ``script``."""

    __slots__ = ("events", "name", "number", "script")

    def __init__(self, name: str, number: int, events: str, script: str) -> None:
        self.name = name
        self.number = number
        self.events = events
        self.script = script


@command(
    "event", "name:string eventset:string script:string", help="register a handler for an event or events", local=True,
    misuse="use 'event <name> <eventset> <script>' to register an event handler",
)  # fmt: skip
def event(fish: Fish, name: str, eventset: str, script: str) -> None:
    names = eventset.split(",")
    for one in names:
        if one != "*" and one not in _EVENTS:
            raise Refused(f"unknown event name: {one}")
    shown_as = "*" if "*" in names else ",".join(sorted(set(names)))
    number = max((handler.number for handler in fish.handlers), default=-1) + 1
    fish.handlers.append(Handler(name, number, shown_as, script))


@command(
    "delete-event", "name:string", help="delete a previously registered event handler", local=True,
    misuse="use 'delete-event <name>' to delete an event handler",
)  # fmt: skip
def delete_event(fish: Fish, name: str) -> None:
    rest = [handler for handler in fish.handlers if handler.name != name]
    if len(rest) == len(fish.handlers):
        raise Refused(f"delete-event: {name}: no such event handler")
    fish.handlers[:] = rest


@command(
    "list-events", help="list event handlers", local=True, misuse="use ‘list-events’ to list event handlers"
)
def list_events(fish: Fish) -> None:
    for handler in fish.handlers:
        fish.out.write(f'"{handler.name}" ({handler.number}): {handler.events}: {handler.script}\n')
