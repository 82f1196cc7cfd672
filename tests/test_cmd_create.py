"""``qemu-img create``: text, exit status and the image made, compared with the real tool's."""

from __future__ import annotations

import itertools
import os
import stat
from pathlib import Path

import pytest

import judges
from cowshed.errors import CowshedError
from cowshed.ops.create import create
from cowshed.ops.info import info
from differential import Arena
from verbs import arena, campaign, check_of, info_of, lines, small_disk

__all__ = ["arena", "small_disk"]  # fixtures


def made(folder: Path, name: str) -> object:
    """What the real tool says of the image. An empty one may be left over by either after a failure."""
    path = folder / name
    if not path.exists() or not path.stat().st_size:
        return "nothing"
    return info_of(folder, name, "cid"), check_of(folder, name)


def run(arena: Arena, trials: list[list[str]], name: str = "new") -> None:
    campaign(arena, trials, (made, name))


def test_formats_and_sizes(arena: Arena) -> None:
    sizes = ("0", "1", "511", "512", "1000", "1.5k", "64k", "10G", "64T")
    trials = [
        ["create", "-f", fmt, "new", size]
        for fmt in ("qcow2", "raw")
        for size in sizes
        if fmt == "qcow2" or size != "64T"
    ]
    trials += [
        ["create", "new", "1M"],
        ["create", "-f", "vmdk", "new", "10M"],
        ["create", "-q", "-f", "qcow2", "new", "1M"],
    ]
    run(arena, trials)


def test_qcow2_options(arena: Arena) -> None:
    options = [f"cluster_size={size}" for size in ("512", "4k", "64K", "2M", "100", "256", "4M", "0", "x", "", "-1")]
    options += [f"refcount_bits={bits}" for bits in ("1", "2", "8", "16", "64", "3", "0", "128", "x", "-1")]
    options += [f"compat={level}" for level in ("0.10", "1.1", "v2", "v3", "0.9", "", "2")]
    options += [f"lazy_refcounts={way}" for way in ("on", "off", "yes", "no", "true", "maybe", "")]
    options += ["lazy_refcounts", "nolazy_refcounts", "extended_l2", "noextended_l2"]
    options += [f"preallocation={mode}" for mode in ("off", "metadata", "falloc", "full", "bogus", "")]
    options += [f"compression_type={name}" for name in ("zlib", "zstd", "lz4", "")]
    options += [f"extended_l2={way}" for way in ("on", "off")]
    options += [
        "extended_l2=on,cluster_size=4k",
        "extended_l2=on,cluster_size=16k",
        "extended_l2=on,preallocation=full",
    ]
    options += ["compat=v2,lazy_refcounts=on", "compat=v2,compression_type=zstd", "compat=v2,refcount_bits=8"]
    options += ["compat=v2,extended_l2=on", "compat=v2,data_file=d", "compat=v2,preallocation=metadata"]
    options += ["data_file=d", "data_file=d,data_file_raw=on", "data_file_raw=on", "data_file=d,preallocation=metadata"]
    options += ["nonsense=1", "nonsense", "=1", "", ",", "cluster_size=64k,", ",cluster_size=64k", "cluster_size=64k,,"]
    options += ["cluster_size=64k,cluster_size=4k", "encryption=off", "encrypt.format=luks", "encrypt.format=aes"]
    run(arena, [["create", "-f", "qcow2", "-o", option, "new", "5M"] for option in options])


def test_raw_and_vmdk_options(arena: Arena) -> None:
    trials = [
        ["create", "-f", "raw", "-o", f"preallocation={mode}", "new", "1M"]
        for mode in ("off", "falloc", "full", "metadata", "x")
    ]
    trials += [
        ["create", "-f", "raw", "-o", option, "new", "1M"] for option in ("nocow=on", "nocow=x", "extent_size_hint=1M")
    ]
    trials += [["create", "-f", "raw", "-o", option, "new", "1M"] for option in ("foo=bar", "foo", "=bar", "size=2M")]
    trials += [
        ["create", "-f", "vmdk", "-o", option, "new", "1M"]
        for option in ("subformat=monolithicSparse", "subformat=x", "adapter_type=x")
    ]
    run(arena, trials)


def test_size_given(arena: Arena) -> None:
    texts = [
        "5x",
        "",
        "-5",
        "8E",
        "9223372036854775807",
        "9223372036854775808",
        "99999999999999999999999",
        "1e3",
        "0x200",
    ]
    texts += ["1.5", "1.5b", "k", " 1", "1 ", "1K", "1b", "1.99999k", "0x10k", "010"]
    trials = [["create", "-f", "raw", "new", "--", text] for text in texts]
    trials += [["create", "-f", "qcow2", "-o", f"size={text}", "new"] for text in ("1M", "1x", "", "8E", "-1", "16E")]
    trials += [
        ["create", "-f", "qcow2", "-o", "size=1M", "new", "1M"],
        ["create", "-f", "qcow2", "new"],
        ["create", "-f", "raw", "new"],
        ["create", "-f", "qcow2", "-o", "cluster_size=512", "new", "64T"],
        ["create", "-f", "qcow2", "new", "100P"],
        ["create", "-f", "raw", "new", "7E"],
    ]
    run(arena, trials)


def test_backing(arena: Arena) -> None:
    (arena.dir / "sub").mkdir()
    arena.setup(
        "create -q -f qcow2 base.qcow2 10M",
        "create -q -f raw base.raw 1000",
        "create -q -f qcow2 odd.qcow2 1000",
        "create -q -f vmdk base.vmdk 1M",
        "create -q -f qcow2 sub/base.qcow2 3M",
    )
    pairs = [
        ("base.qcow2", "qcow2"),
        ("base.raw", "raw"),
        ("base.qcow2", "raw"),
        ("odd.qcow2", "qcow2"),
        ("base.vmdk", "vmdk"),
    ]
    pairs += [("./base.qcow2", "qcow2"), ("sub/base.qcow2", "qcow2"), ("file:base.qcow2", "qcow2"), ("nope", "qcow2")]
    pairs += [
        ("base.qcow2", "nope"),
        ("base.qcow2", "vmdk"),
        ("", "qcow2"),
        ("base.qcow2", ""),
        (".", "raw"),
        ("nosuch:x", "raw"),
    ]
    pairs += [('json:{"driver":"qcow2","file":{"driver":"file","filename":"base.qcow2"}}', "qcow2")]
    trials = []
    for (base, fmt), size, unsafe in itertools.product(pairs, ([], ["7M"]), ([], ["-u"])):
        trials.append(["create", "-f", "qcow2", *unsafe, "-b", base, "-F", fmt, "new", *size])
    for base in ("base.qcow2", "base.raw", "nope"):
        trials.append(["create", "-f", "qcow2", "-b", base, "new"])
        trials.append(["create", "-f", "qcow2", "-b", base, "new", "1M"])
        trials.append(["create", "-f", "qcow2", "-u", "-b", base, "new", "1M"])
        trials.append(["create", "-f", "qcow2", "-o", f"backing_file={base}", "new"])
        trials.append(["create", "-f", "qcow2", "-o", f"backing_file={base},backing_fmt=qcow2", "new"])
        trials.append(["create", "-f", "raw", "-b", base, "new", "1M"])
    trials += [
        ["create", "-f", "qcow2", "-F", "qcow2", "new", "1M"],
        ["create", "-f", "raw", "-F", "raw", "new", "1M"],
        ["create", "-f", "qcow2", "-b", "new", "-F", "qcow2", "new"],
        ["create", "-f", "qcow2", "-o", "backing_file=base.qcow2,backing_fmt=qcow2", "-F", "raw", "new"],
        ["create", "-f", "qcow2", "-o", "backing_file=base.raw", "-b", "base.qcow2", "-F", "qcow2", "new"],
        ["create", "-f", "qcow2", "-o", "data_file=d,data_file_raw=on", "-b", "base.qcow2", "-F", "qcow2", "new"],
        ["create", "-f", "vmdk", "-b", "base.vmdk", "-F", "vmdk", "new"],
        ["create", "-f", "vmdk", "-b", "base.qcow2", "-F", "qcow2", "new"],
    ]
    run(arena, trials)


def test_backing_in_another_directory(arena: Arena) -> None:
    (arena.dir / "sub").mkdir()
    arena.setup("create -q -f qcow2 base.qcow2 10M", "create -q -f qcow2 sub/near.qcow2 3M")
    trials = [
        ["create", "-f", "qcow2", "-b", base, "-F", "qcow2", "sub/new"]
        for base in ("../base.qcow2", "base.qcow2", "near.qcow2")
    ]
    run(arena, trials, "sub/new")


def test_long_backing_names(arena: Arena) -> None:
    trials = [
        ["create", "-f", "qcow2", *cluster, "-u", "-b", "x" * length, "-F", "raw", "new", "1M"]
        for length in (300, 400, 1023, 1024, 2000)
        for cluster in ([], ["-o", "cluster_size=512"])
    ]
    run(arena, trials)


def test_arguments_and_help(arena: Arena) -> None:
    trials = lines(
        """
        create
        create -f qcow2
        create a b c
        create a 1M c
        create -f
        create -Z
        create --bogus
        create -f nope new 1M
        create -f bochs new 1M
        create -f file new 1M
        create -f qcow2 bogus:x 1M
        create -f qcow2 '' 1M
        create -f qcow2 -o help
        create -f qcow2 -o '?'
        create -f qcow2 -o help new
        create -o help
        create -f raw -o help
        create -f raw -o help new
        create -f vmdk -o help new
        create -f bochs -o help
        create -f nope -o help
        create -f qcow2 -o size=1M,help new
        create --object secret,id=a,data=b -f qcow2 new 1M
        create --object nope new 1M
        create -f qcow2 /nonexistent/new 1M
        create -f raw /nonexistent/new 1M
        create -f qcow2 . 1M
        create -f qcow2 new 1M -q
        create -f qcow2 a,b 1M
        create -f qcow2 ./a:b 1M
        """
    )
    run(arena, trials)


def test_over_an_existing_file(arena: Arena) -> None:
    arena.setup("create -q -f qcow2 -o preallocation=metadata new 10M")
    run(arena, [["create", "-f", fmt, "new", "1M"] for fmt in ("qcow2", "raw")])


def test_as_a_process(arena: Arena) -> None:
    """The line that says what will be made stands before the error, also where both streams go to one file."""
    arena.check("create", "-f", "qcow2", "new", "1M", link=True, merged=True, changes=True)
    arena.check("create", "-f", "qcow2", "-o", "cluster_size=3", "new", "1M", link=True, merged=True, changes=True)


def test_full_disk(small_disk: Path) -> None:
    """Preallocation that does not fit: an error, and no image."""
    for fmt, mode in (("qcow2", "full"), ("qcow2", "falloc"), ("raw", "full"), ("raw", "falloc")):
        real = judges.run(
            "qemu-img", "create", "-q", "-f", fmt, "-o", f"preallocation={mode}", "new", "40M", cwd=small_disk, ok=(1,)
        )
        left = (small_disk / "new").exists()
        (small_disk / "new").unlink(missing_ok=True)
        with pytest.raises(CowshedError) as caught:
            create(str(small_disk / "new"), fmt, {"preallocation": mode}, size="40M")
        assert str(caught.value).split(": ", 1)[1] == real.stderr.rstrip().split(": ", 2)[2]
        if (small_disk / "new").exists():
            assert left and (small_disk / "new").stat().st_size == 0
            (small_disk / "new").unlink()


def test_api(tmp_path: Path) -> None:
    lines: list[str] = []
    path = tmp_path / "a.qcow2"
    options = create(path, "qcow2", {"cluster_size": 4096, "lazy_refcounts": True}, size="1.5G", announce=lines.append)
    assert options["size"] == 3 << 29 and options["cluster_size"] == 4096
    assert lines == [
        f"Formatting '{path}', fmt=qcow2 cluster_size=4096 extended_l2=off compression_type=zlib size=1610612736 "
        "lazy_refcounts=on refcount_bits=16"
    ]
    assert info(str(path)).virtual_size == 3 << 29
    assert stat.S_IMODE(path.stat().st_mode) == 0o644 & ~_umask() or stat.S_IMODE(path.stat().st_mode) == 0o644
    with pytest.raises(CowshedError, match="only once"):
        create(path, "qcow2", {"size": 1024}, size=2048)
    assert info(str(path)).virtual_size == 3 << 29  # refused before anything was touched


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
