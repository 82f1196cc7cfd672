"""The pack: the bytecode of all of cowshed in one file, for the launchers that ``cowshed links`` makes (see packed.py).

    32 bytes          two decimal numbers: sys.hexversion of the interpreter, the size of what follows
    a marshalled pair code of packed.py; the index (`packed.Pack`)
    the modules       each: `packed.MARK`; marshalled, its name, source, bytecode file, a package's directory or None,
                      the source's size and time of change in ns, and the code

It stands beside the bytecode files of the package and is trusted as they are. A launcher whose interpreter has another
version, or that finds no pack, works without one.
"""

from __future__ import annotations

import marshal
import os
import sys

from .packed import MARK

_HEADER = 32

# what cowshed's modules import first of all that is in no frozen module of the interpreter
_STANDARD = ("__future__", "struct")


def pack_path() -> str:
    """Where this package's pack is, or would be."""
    folder = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    return os.path.join(folder, "__pycache__", f"links.{sys.implementation.cache_tag}.pack")


def write_pack() -> bool:
    """Make the pack, whole or not at all, unless it is there and true. False where that can't be: a directory that may
    not be written."""
    path = pack_path()
    fresh = f"{path}.{os.getpid()}"
    try:
        sources = _sources()
        stamp = _stamp(sources)
        if _is_true(path, stamp):
            return True
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(fresh, "xb") as file:
            file.write(_build(sources, stamp))
            file.flush()
            os.fsync(file.fileno())
        os.rename(fresh, path)
    except BaseException as error:
        try:
            os.unlink(fresh)
        except OSError:
            pass
        if not isinstance(error, OSError):
            raise
        return False
    return True


def _sources() -> dict[str, str]:
    """The name of each module, and its source."""
    from importlib.util import find_spec

    sources = dict(_own())
    for name in _STANDARD:
        spec = find_spec(name)
        if spec is not None and spec.origin is not None and spec.origin.endswith(".py"):
            sources[name] = spec.origin
    return sources


def _stamp(sources: dict[str, str]) -> str:
    """Other sources have another one."""
    from hashlib import blake2b

    facts = []
    for name, source in sources.items():
        status = os.stat(source)
        facts.append((name, source, status.st_size, status.st_mtime_ns))
    return blake2b(repr(facts).encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


def _is_true(path: str, stamp: str) -> bool:
    """Is there a whole pack of these sources and this interpreter?"""
    try:
        with open(path, "rb") as file:
            version, size = map(int, file.read(_HEADER).split())
            if version != sys.hexversion:
                return False
            index = marshal.loads(file.read(size))[1]
            there, modules = index[: index.index(b"\n")].split()
            return bool(there == stamp.encode() and os.fstat(file.fileno()).st_size == _HEADER + size + int(modules))
    except (OSError, ValueError, EOFError, TypeError, LookupError):
        return False


def _build(sources: dict[str, str], stamp: str) -> bytes:
    from importlib.machinery import SourceFileLoader
    from importlib.util import cache_from_source

    index = []
    modules = []
    offset = 0
    for name, source in sources.items():
        before = os.stat(source)
        code = SourceFileLoader(name, source).get_code(name)
        after = os.stat(source)
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            continue  # somebody writes it at this moment
        folder = os.path.dirname(source) if os.path.basename(source) == "__init__.py" else None
        facts = (name, source, cache_from_source(source), folder, after.st_size, after.st_mtime_ns, code)
        data = MARK + marshal.dumps(facts)
        index.append(f"{name} {offset} {len(data)}\n")
        modules.append(data)
        offset += len(data)
    index.insert(0, f"{stamp} {offset}\n")
    head = marshal.dumps((SourceFileLoader("packed", _packed()).get_code("packed"), "".join(index).encode()))
    return b"".join((f"{sys.hexversion} {len(head)}".ljust(_HEADER).encode(), head, *modules))


def _packed() -> str:
    return os.path.join(os.path.dirname(os.path.abspath(__file__)), "packed.py")


def _own() -> list[tuple[str, str]]:
    """(name, source) of cowshed's modules."""
    top = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    above = os.path.dirname(top)
    found = []
    for folder, folders, files in os.walk(top):
        folders[:] = sorted(name for name in folders if name != "__pycache__")
        for file in sorted(files):
            if file.endswith(".py"):
                name = os.path.relpath(os.path.join(folder, file), above)[:-3].replace(os.sep, ".")
                found.append((name.removesuffix(".__init__"), os.path.join(folder, file)))
    return found


def launch() -> str:
    """What a launcher says to use the pack if there is one."""
    return f"""\
try:
    fd = posix.open({pack_path()!r}, posix.O_RDONLY | posix.O_CLOEXEC)
    version, size = map(int, posix.pread(fd, {_HEADER}, 0).split())
    if fd < 3:
        posix.close(fd)
    elif version == sys.hexversion:
        code, index = loads(posix.pread(fd, size, {_HEADER}))
        exec(code)
        install(fd, size + {_HEADER}, index)
except Exception:
    pass
"""
