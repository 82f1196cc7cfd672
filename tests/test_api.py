"""The public names: which there are, that they are typed and documented, that they cost nothing until used."""

from __future__ import annotations

import inspect
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import cowshed
import judges

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))

#: every public name; a change here is a change for everybody who uses the package
VERBS = """
amend bitmap bitmap_list check commit compare convert create info map measure open parse_image_opts rebase
register_driver resize snapshot_apply snapshot_create snapshot_delete snapshot_list
""".split()  # noqa: SIM905
THINGS = """
Bitmap CheckReport CheckResult Comparison Driver Extent ImageInfo MapEntry Measure Node Option OptionTable Progress
Secrets Snapshot
""".split()  # noqa: SIM905
KINDS = ["COMPRESSED", "DATA", "ENCRYPTED", "HOLE", "ZERO"]
ERRORS = """
CorruptError CowshedError FeatureError ForeignError FormatError HostError LockError NoSpaceError OpenError OptionError
RangeError ReadOnlyError TrustError UnsupportedError UsageError
""".split()  # noqa: SIM905

#: what costs start-up time and is not needed to look at an image
HEAVY = """
argparse asyncio concurrent.futures ctypes dataclasses enum functools importlib.metadata inspect json
logging multiprocessing numpy pathlib random re shutil socket subprocess tempfile threading typing zstandard
""".split()  # noqa: SIM905


def python(script: str, *argv: str, cwd: Path | None = None) -> str:
    """What a fresh interpreter prints; without site packages' own start-up imports."""
    path = os.pathsep.join([str(ROOT / "src"), *(entry for entry in sys.path if entry.endswith("site-packages"))])
    code = f"import sys; sys.path[:0] = {path.split(os.pathsep)!r}\n{script}"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, *argv], capture_output=True, text=True, cwd=cwd, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_public_names_are_these() -> None:
    assert sorted(cowshed.__all__) == sorted(VERBS + THINGS + KINDS + ERRORS)
    assert set(dir(cowshed)) == {*cowshed.__all__, "__version__"}


@pytest.mark.parametrize("name", VERBS + THINGS + KINDS + ERRORS)
def test_name_loads(name: str) -> None:
    value = getattr(cowshed, name)
    if name in VERBS:
        assert inspect.isfunction(value)
    elif name not in KINDS:
        assert inspect.isclass(value)
    if name not in KINDS:
        assert value.__module__.startswith("cowshed.")


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match="module 'cowshed' has no attribute 'moo'"):
        _ = cowshed.moo  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", VERBS + THINGS)
def test_name_is_documented(name: str) -> None:
    text = inspect.getdoc(getattr(cowshed, name))
    assert text, f"{name} has no docstring"
    assert text[0].isupper() or text[0] == "`", text


@pytest.mark.parametrize("name", VERBS)
def test_verb_is_typed_and_documented_in_full(name: str) -> None:
    function = getattr(cowshed, name)
    signature = inspect.signature(function)
    assert signature.return_annotation is not inspect.Signature.empty
    for parameter in signature.parameters.values():
        assert parameter.annotation is not inspect.Parameter.empty, parameter.name
    text = inspect.getdoc(function) or ""
    if name not in ("register_driver", "bitmap_list", "snapshot_list"):
        assert "Raises" in text, "the docstring does not say what it raises"


def test_errors_have_one_root() -> None:
    for name in ERRORS:
        cls = getattr(cowshed, name)
        assert issubclass(cls, cowshed.CowshedError)
        error = cls("text", path="/x", offset=5, field="magic", value=1, limit=2)
        assert str(error) == "text" and "/x" in error.detail and "magic" in error.detail


def test_package_says_that_it_is_typed() -> None:
    assert (ROOT / "src/cowshed/py.typed").exists()


def test_import_loads_nothing() -> None:
    loaded = python(
        "before = set(sys.modules); import cowshed; print(*sorted(set(sys.modules) - before - {'__future__'}))"
    )
    assert loaded.split() == ["cowshed"]


def test_info_loads_little(tmp_path: Path) -> None:
    cowshed.create(tmp_path / "x.qcow2", "qcow2", size=1 << 20)
    loaded = python(
        f"before = set(sys.modules); import cowshed; cowshed.info({str(tmp_path / 'x.qcow2')!r})\n"
        "print(*sorted(set(sys.modules) - before))"
    ).split()
    assert not set(loaded) & set(HEAVY)
    ours = [name for name in loaded if name.startswith("cowshed")]
    # neither writing, nor checking, nor other formats
    assert not [name for name in ours if name.split(".")[-1] in ("write", "check", "convert", "vmdk", "creation")]


def test_open_and_read_load_little(tmp_path: Path) -> None:
    cowshed.create(tmp_path / "x.qcow2", "qcow2", size=1 << 20)
    loaded = python(
        f"before = set(sys.modules); import cowshed\n"
        f"with cowshed.open({str(tmp_path / 'x.qcow2')!r}) as disk: disk.read(0, 4096)\n"
        "print(*sorted(set(sys.modules) - before))"
    ).split()
    assert not set(loaded) & set(HEAVY)


def test_info_is_much_quicker_than_a_process(tmp_path: Path, figures: Any) -> None:
    tool = judges.need("qemu-img")
    path = str(tmp_path / "x.qcow2")
    cowshed.create(path, "qcow2", size=1 << 30)
    cowshed.info(path)
    ours, theirs = [], []
    for _ in range(7):
        start = time.perf_counter()
        for _ in range(10):
            cowshed.info(path)
        middle = time.perf_counter()
        for _ in range(3):
            subprocess.run([tool, "info", "--output=json", path], capture_output=True, check=True)
        ours.append((middle - start) / 10)
        theirs.append((time.perf_counter() - middle) / 3)
    ratio = statistics.median(theirs) / statistics.median(ours)
    assert ratio >= 5, f"{ratio:.1f} times"


def test_verbs_take_open_nodes(tmp_path: Path) -> None:
    cowshed.create(tmp_path / "x.qcow2", "qcow2", size=1 << 20)
    with cowshed.open(tmp_path / "x.qcow2", writable=True) as disk:
        disk.write(0, b"x" * 65536)
        disk.flush()
        assert cowshed.info(disk).virtual_size == 1 << 20
        first = next(iter(cowshed.map(disk)))
        assert (first.start, first.length, first.data) == (0, 65536, True)
        assert not disk.closed
    assert disk.closed


def test_buffers_of_all_kinds(tmp_path: Path) -> None:
    """Reading fills the caller's buffer; writing takes bytes, bytearray, memoryview, array and mmap."""
    import mmap
    from array import array

    cowshed.create(tmp_path / "x.qcow2", "qcow2", size=1 << 20)
    with cowshed.open(tmp_path / "x.qcow2", writable=True) as disk, mmap.mmap(-1, 4096) as anonymous:
        anonymous[:4] = b"mmap"
        pieces: list[Any] = [
            b"b" * 512, bytearray(b"a" * 512), memoryview(b"m" * 512), memoryview(anonymous), array("Q", range(64)),
        ]  # fmt: skip
        for number, piece in enumerate(pieces):
            disk.write(number * 8192, piece)
        for number, piece in enumerate(pieces):
            data = bytes(piece)
            buffer = bytearray(len(data) + 2)
            disk.read_into(number * 8192, memoryview(buffer)[1:-1])
            assert bytes(buffer) == b"\0" + data + b"\0"
        # nothing holds on to a caller's buffer
        pieces.clear()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs(path: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(path)], capture_output=True, text=True, cwd=tmp_path, timeout=120,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout
    assert list(tmp_path.iterdir()) == [], "an example leaves something behind"


def test_examples_are_there() -> None:
    assert len(EXAMPLES) >= 6
    for path in EXAMPLES:
        assert path.read_text().startswith('"""'), f"{path.name} does not say what it shows"
