"""``cowshed links DIR``: launchers under the tools' own names, so that ``qemu-img`` in DIR is cowshed's.

A launcher is a few lines of Python run as ``python -I -S -X utf8``: isolated from the caller's environment and
directory, without the search for site packages (a third of the start-up), with names read as bytes whatever the
locale. What the search would have found is written into the launcher instead, so a launcher belongs to the
environment that made it. It loads modules out of a pack (pack.py), which is made beside it.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .output import Output

_MARK = "# Made by `cowshed links`; run that again to renew it, or delete it.\n"
# The kernel reads a first line of this many bytes at most (before Linux 5.1), and splits it at blanks.
_LONGEST = 127


def run(argv: list[str], out: Output) -> int:
    """``argv``: what follows ``links``. Returns the exit status."""
    from .main import TOOLS
    from .pack import write_pack

    if len(argv) != 1 or argv[0].startswith("-"):
        if argv == ["--help"] or argv == ["-h"]:
            out.write(f"usage: cowshed links DIR\n\nMakes {' '.join(TOOLS)} in DIR, which run this cowshed.\n")
            return 0
        out.error("usage: cowshed links DIR")
        return 1
    folder = argv[0]
    code = 0
    write_pack()
    try:
        os.makedirs(folder, exist_ok=True)
        for tool in TOOLS:
            code |= _link(os.path.join(folder, tool), tool, out)
    except OSError as error:
        out.error(f"{error.filename or folder}: {error.strerror}")
        return 1
    return code


def _link(path: str, tool: str, out: Output) -> int:
    text = launcher(tool)
    if os.path.lexists(path):
        old = _read(path)
        if _MARK not in old:
            out.error(f"'{path}' was not made by cowshed and is left alone")
            return 1
        if old == text and os.access(path, os.X_OK):
            out.write(f"{path} is up to date\n")
            return 0
    # A new file renamed over the old one: whoever runs the launcher now sees one or the other, whole.
    fresh = f"{path}.{os.getpid()}"
    try:
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o777)
        with open(fd, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
        os.rename(fresh, path)
    except OSError:
        try:
            os.unlink(fresh)
        except OSError:
            pass
        raise
    out.write(f"{path} runs {sys.executable}\n")
    return 0


def _read(path: str) -> str:
    """The text of a regular file that may be a launcher; "" for anything else."""
    if os.path.islink(path) or not os.path.isfile(path) or os.path.getsize(path) > 1 << 16:
        return ""
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


def launcher(tool: str) -> str:
    """The text of the launcher of ``tool``."""
    from .pack import launch

    python = sys.executable
    first = f"#!{python} -ISXutf8\n"
    if len(os.fsencode(first)) > _LONGEST or any(char.isspace() for char in python):
        # To the shell the second line runs Python on this file; to Python it is a string.
        quoted = python.replace("'", "'\"'\"'")
        first = f"#!/bin/sh\n'''exec' '{quoted}' -ISXutf8 \"$0\" \"$@\"\n' '''\n"
    return (
        f"{first}{_MARK}import posix\nimport sys\nfrom marshal import loads\n\nsys.path += {search_path()!r}\n"
        f"{launch()}from cowshed.cli.main import tool\n\ntool({tool!r})\n"
    )


def search_path() -> list[str]:
    """Where modules are found beside the standard library: cowshed's own folder first."""
    import sysconfig

    own = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    script = os.path.abspath(sys.argv[0])
    skip = {"", os.getcwd(), os.path.dirname(script), os.path.dirname(os.path.realpath(script))}
    standard = {os.path.realpath(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")}
    paths = [own]
    for entry in sys.path:
        path = os.path.abspath(entry) if entry else ""
        real = os.path.realpath(path)
        library = real in standard or os.path.basename(real) == "lib-dynload"
        if path in skip or path in paths or library or not os.path.isdir(path):
            continue
        paths.append(path)
    return paths
