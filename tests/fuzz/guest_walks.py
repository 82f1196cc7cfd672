"""What the fuzz targets do with a file system: everything that a reader may ask, and a writer's verbs."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from pathlib import Path

from guest_fuzz import Case, Image, Target, mutate

import judges
from cowshed.guest.filesystem.base import FileSystem, GuestError
from cowshed.guest.filesystem.table import open_filesystem
from cowshed.guest.tree import Tree

NOW = 1_700_000_000 * 10**9
#: names and files that a walk looks at before it has seen enough of a mutant
MOST = 4000


def walk(fs: FileSystem, case: Case) -> None:
    """All that a reader may ask, each part for itself, as one error ends only that part; then as the verbs do it."""
    seen, todo, count = {fs.root}, [fs.root], 0
    while todo and count < MOST:
        folder = todo.pop()
        names: list[tuple[bytes, int]] = []

        def listing(folder: int = folder, names: list[tuple[bytes, int]] = names) -> None:
            for name, ino, _ in fs.entries(folder):
                assert isinstance(name, bytes)
                names.append((name, ino))
                if len(names) > MOST:
                    break

        case.attempt(listing)
        for index, (name, ino) in enumerate(names):
            count += 1
            if index % 10 == 0:
                case.attempt(lambda folder=folder, name=name: fs.lookup(folder, name))  # type: ignore[misc]
            if ino not in seen and len(seen) < MOST:
                seen.add(ino)
                case.attempt(lambda ino=ino: one(fs, ino, todo))  # type: ignore[misc]
    case.attempt(fs.statvfs)
    tree = Tree()
    tree.mount(fs, "/dev/sda", b"/", True)

    def verbs() -> None:
        for index, found in enumerate(tree.walk(tree.resolve(b"/"))):
            assert not {b"..", b".", b""} & set(found.path.split(b"/")) or not index
            if index > MOST:
                break

    case.attempt(verbs)
    tree.mounts.clear()


def one(fs: FileSystem, ino: int, todo: list[int]) -> None:
    facts = fs.stat(ino)
    kind = facts.mode >> 12
    if kind == 0o04:
        todo.append(ino)
    elif kind == 0o12:
        assert len(fs.readlink(ino)) <= 65536
    elif kind == 0o10:
        assert len(fs.read(ino, 0, 1 << 16)) <= 1 << 16
        fs.read(ino, max(0, facts.size - 5000), 6000)
        position = 0
        for _, (at, length, _) in zip(range(3000), fs.extents(ino, 0, facts.size), strict=False):
            assert at == position and length > 0, f"extents of inode {ino}: {at}+{length} after {position}"
            position += length
    fs.xattrs(ino)


def change(fs: FileSystem, case: Case, rng: random.Random) -> None:
    """A writer's verbs, synced or forgotten by turns."""
    names = [name for name, _, _ in fs.entries(fs.root) if name not in (b".", b"..", b"lost+found")][:40]

    def some() -> bytes:
        return rng.choice(names) if names and rng.random() < 0.8 else b"new %d" % rng.randrange(6)

    def number_of(name: bytes) -> int:
        ino = fs.lookup(fs.root, name)
        if ino is None:
            raise GuestError(2, repr(name))
        return ino

    verbs: tuple[Callable[[], object], ...] = (
        lambda: fs.create(fs.root, rng.choice((b"new %d", b"N%d")) % rng.randrange(6), 0o100644, 0, 0, NOW),
        lambda: fs.create(fs.root, b"dir %d" % rng.randrange(3), 0o040755, 0, 0, NOW),
        lambda: fs.create(
            fs.root, b"link %d" % rng.randrange(3), 0o120777, 0, 0, NOW, target=b"t" * rng.choice((9, 90))
        ),
        lambda: fs.write(number_of(some()), rng.choice((0, 1000, 70_000, 5 << 20)), bytes(range(256)) * 40, NOW),
        lambda: fs.truncate(number_of(some()), rng.choice((0, 5, 5000, 1 << 20)), NOW),
        lambda: fs.unlink(fs.root, some(), NOW),
        lambda: fs.rmdir(fs.root, some(), NOW),
        lambda: fs.rename(fs.root, some(), fs.root, some(), NOW),
        lambda: fs.rename(fs.root, some(), number_of(some()), some(), NOW),
        lambda: fs.link(number_of(some()), fs.root, b"new %d" % rng.randrange(6), NOW),
        lambda: fs.set_attributes(number_of(some()), NOW, mode=0o600, uid=7, gid=8, mtime=NOW),
        lambda: fs.set_xattr(number_of(some()), b"user.b", b"v" * rng.choice((1, 300, 900)), NOW),
        lambda: fs.remove_xattr(number_of(some()), b"user.a", NOW),
    )

    def once(verb: Callable[[], object]) -> None:
        verb()
        if rng.random() < 0.4:
            fs.sync()

    for _ in range(8):
        if not case.attempt(lambda: once(rng.choice(verbs))):
            fs.discard_changes()
    if case.attempt(fs.sync):
        case.count("synced")
    else:
        fs.discard_changes()


def places_of(image: Image, work: Callable[[], object], unit: int) -> list[tuple[int, int]]:
    """Where the metadata is: what is read in pieces of no more than 64 KiB, the beginning of the device often."""
    image.reads = []
    work()
    found = sorted({(offset, min(length, 4096)) for offset, length in image.reads if length <= 65536 and length >= 4})
    image.reads = None
    head = [place for place in found if place[0] < 4 * unit]
    return found + head * max(1, len(found) // (8 * max(1, len(head))))


class Agree(int):
    """A checksum that is always right."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    def __and__(self, other: int) -> Agree:
        return self

    __hash__ = int.__hash__


def agree(package: str, *names: str) -> None:
    """Let checksum functions of a package agree with whatever stands on the disk."""
    for module in list(sys.modules.values()):
        if getattr(module, "__name__", "").startswith(package):
            for name in names:
                if hasattr(module, name):
                    setattr(module, name, lambda *_: Agree(0))


def filesystem(
    image: Image, kind: str, unit: int, *, writable: bool, places: list[tuple[int, int]] | None = None
) -> Target:
    """The target of a file system: half of the mutants are read, half are written to when that can be done."""

    def look() -> None:
        fs = open_filesystem(image, kind)
        walk(fs, Case())
        fs.close()

    spots = places or places_of(image, look, unit)
    blocks = sorted({offset // unit for offset, _ in spots})

    def run(seed: int, case: Case) -> None:
        rng = random.Random(f"{image.filename.rpartition('/')[2]} {seed}")
        image.reset()
        mutate(image, rng, spots, blocks, unit=unit)
        writing = writable and seed % 2 == 1
        image.read_only = not writing

        def work() -> None:
            fs = open_filesystem(image, kind, writable=writing)
            case.count("opened")
            try:
                if writing:
                    change(fs, case, rng)
                else:
                    walk(fs, case)
            finally:
                fs.close()

        case.attempt(work)
        if writing and seed % 8 == 1:
            image.read_only = True
            case.attempt(look)

    return run


def judged(image: Image, kind: str, unit: int, mend: tuple[str, ...], check: tuple[str, ...], scratch: Path) -> Target:
    """A mutant that the field's tool mended is odd and sound: it has to stay sound when we write to it."""

    def look() -> None:
        fs = open_filesystem(image, kind)
        walk(fs, Case())
        fs.close()

    spots = places_of(image, look, unit)
    blocks = sorted({offset // unit for offset, _ in spots})

    def run(seed: int, case: Case) -> None:
        rng = random.Random(f"judged {image.filename.rpartition('/')[2]} {seed}")
        image.reset()
        mutate(image, rng, spots, blocks, unit=unit, changes=(1, 2, 6, 30))
        path = image.save(scratch)
        judges.run(*mend, path, ok=range(256))
        if judges.run(*check, path, ok=range(256)).returncode:
            return
        case.count("mended")
        odd = Image(path)
        try:
            odd.read_only = False

            def work() -> None:
                fs = open_filesystem(odd, kind, writable=True)
                try:
                    change(fs, case, rng)
                finally:
                    fs.close()

            case.attempt(work)
            after = odd.save(scratch.with_suffix(".after"))
            told = judges.run(*check, after, ok=range(256))
            assert not told.returncode, f"no longer sound: {told.stdout}{told.stderr}"
        finally:
            odd.end()

    return run
