"""Modules out of a pack: what the launchers of ``cowshed links`` load instead of hundreds of small files.

Finding one module among files costs ten system calls and reading directories; a short command loads fifty. A pack
(pack.py writes it) holds their bytecode in one file behind one index. A module's source is still looked at: when its
size or time of change is no longer what the pack was made from, Python finds the module as it would without a pack.

This module's own bytecode stands at the head of the pack and is run from there, so it imports only what every
interpreter has loaded already; the annotations are strings, since even ``__future__`` would be one module more.
"""

import posix
import sys
from _frozen_importlib import ModuleSpec
from marshal import loads

#: what every module in a pack begins with
MARK = b"cowshed module\n"


class Pack:
    """A finder and loader (PEP 302, PEP 451). ``fd``: the pack; ``base``: where its modules begin in it; ``index``:
    a line of what the pack was made from, then lines of a module's name, its offset there and its size: looking a name
    up in them costs less than a dictionary of all. What a module is made of, see pack.py."""

    def __init__(self, fd: "int", base: "int", index: "bytes") -> "None":
        self.fd = fd
        self.base = base
        self.index = index

    def find_spec(self, name: "str", path: "object" = None, target: "object" = None) -> "object":
        """The module's spec, with its code; None where Python is to look elsewhere."""
        line = f"\n{name} ".encode("utf-8", "surrogatepass")
        at = self.index.find(line)
        if at < 0:
            return None
        at += len(line)
        try:
            offset, length = map(int, self.index[at : self.index.index(b"\n", at)].split())
            data = posix.pread(self.fd, length, self.base + offset)
            # Somebody who closes all descriptors may have another file under this number.
            if len(data) != length or not data.startswith(MARK):
                return None
            there, source, cached, folder, size, changed, code = loads(data[len(MARK) :])
            status = posix.stat(source)
        except (OSError, ValueError, EOFError, TypeError):
            return None
        if there != name or status.st_size != size or status.st_mtime_ns != changed:
            return None
        spec = ModuleSpec(name, self, origin=source, loader_state=code)  # type: ignore[arg-type]
        spec.has_location = True
        spec.cached = cached
        if folder is not None:
            spec.submodule_search_locations = [folder]
        return spec

    def create_module(self, spec: "object") -> "None":
        """The usual kind of module."""
        return None

    def exec_module(self, module: "object") -> "None":
        """Run the code that `find_spec` found."""
        spec = module.__spec__  # type: ignore[attr-defined]
        code, spec.loader_state = spec.loader_state, None
        exec(code, module.__dict__)


def install(fd: "int", base: "int", index: "bytes") -> "None":
    """Look into the pack first, whatever is imported."""
    sys.meta_path.insert(0, Pack(fd, base, index))  # type: ignore[arg-type]
