# ruff: noqa: E501 - command lines and documents are easier to read unbroken
"""Volumes of a directory: the same commands to the real virsh and to ours, failing ones included."""

from __future__ import annotations

import os

import pytest

import judges
from libvirtd import Ranch

#: what stands there for good reason, and is in docs/differences-virsh.md
MASK: list[str | tuple[str, str]] = [
    # no child process did it
    (r"Child process \(/usr/bin/qemu-img [^)]*\) unexpected exit status 1: qemu-img: (.*)\n", r"\1"),
    (r"(?<=Could not open '\{dir\}/p/d\.dir': )Could not open '[^']*': ", ""),
]

CREATE = """
vol-list p
vol-list p --details
vol-create-as p v1 10M
vol-create-as p v1 10M
vol-create-as p v2.qcow2 10M --format qcow2
vol-create-as p v3 10M --allocation 2M
vol-create-as p v4 10M --allocation 0
vol-create-as p v5.qcow2 10M --format qcow2 --prealloc-metadata
vol-create-as p v5 10M --prealloc-metadata
vol-create-as p v6 10M --format nosuch
vol-create-as p a/b 10M
vol-create-as p .. 10M
vol-create-as p . 10M
vol-create-as p '' 10M
vol-create-as p big 100T
vol-create-as p badsize 10X
vol-create-as p badsize x
vol-create-as p badsize -1
vol-create-as p badsize 99999999999999999999
vol-create-as p badsize 17E
vol-create-as p badsize 10M --allocation 10X
vol-create-as p s1 1
vol-create-as p s2 513
vol-create-as p s3 1000KB
vol-create-as p s4 1MiB
vol-create-as p s5 2mb
vol-create-as p s6 1M --allocation 3M
vol-create-as p bk.qcow2 10M --format qcow2 --backing-vol v1 --backing-vol-format raw
vol-create-as p bk2.qcow2 10M --format qcow2 --backing-vol nosuch
vol-create-as p bk3.qcow2 10M --format qcow2 --backing-vol v2.qcow2 --backing-vol-format qcow2
vol-create-as p bk4.qcow2 10M --format qcow2 --backing-vol {dir}/p/v2.qcow2 --backing-vol-format qcow2
vol-create-as p bk5.qcow2 10M --format qcow2 --backing-vol v1 --backing-vol-format nosuch
vol-create-as p d.dir 0 --format dir
vol-create-as p v.vmdk 10M --format vmdk
vol-create-as p n1 10M --format none
vol-create-as p val 10M --validate
vol-create-as --print-xml p pxml 10M --allocation 1M --format qcow2
vol-create-as p pxml 10M --format qcow2 --backing-vol v1 --backing-vol-format raw --print-xml
vol-create-as p
vol-create-as p x
vol-create-as
vol-create-as nosuch x 1M
vol-create-as --pool p --name named --capacity 1M
vol-create p nosuch.xml
vol-create p bad.xml
vol-create p noname.xml
vol-create p nocap.xml
vol-create p full.xml
vol-create p full.xml
vol-create p features.xml
vol-create p clusters.xml
vol-create p compat.xml
vol-create p badcompat.xml
vol-create p badunit.xml
vol-create p overflow.xml
vol-create p backing.xml
vol-create p nobacking.xml
vol-create p blocktype.xml
vol-create p badtype.xml
vol-create p mode.xml
vol-create p badmode.xml
vol-create p unknown.xml --validate
vol-create p unknown.xml
vol-create nosuch full.xml
vol-create p
vol-create
vol-list p
vol-list p --details
vol-list --pool p
vol-list nosuch
vol-list
vol-list p --nosuch
vol-info v1 p
vol-info v1 --pool p --bytes
vol-info v2.qcow2 p
vol-info v2.qcow2 p --physical
vol-info v2.qcow2 p --physical --bytes
vol-info d.dir p
vol-info s2 p --bytes
vol-info v3 p
vol-info {dir}/p/v3
vol-info nosuch p
vol-info nosuch
vol-info v1 nosuch
vol-info v1
vol-info
pool-refresh p
vol-dumpxml v1 p
vol-dumpxml v2.qcow2 p
vol-dumpxml v5.qcow2 p
vol-dumpxml bk.qcow2 p
vol-dumpxml bk3.qcow2 p
vol-dumpxml bk4.qcow2 p
vol-dumpxml d.dir p
vol-dumpxml v.vmdk p
vol-dumpxml full.qcow2 p
vol-dumpxml features.qcow2 p
vol-dumpxml clusters.qcow2 p
vol-dumpxml compat.qcow2 p
vol-dumpxml s6 p
vol-dumpxml v2.qcow2 p --xpath //format
vol-dumpxml v2.qcow2 p --xpath //capacity/text()
vol-dumpxml nosuch p
vol-dumpxml {dir}/p/v1
vol-path v1 p
vol-path v1
vol-path {dir}/p/v1
vol-path nosuch p
vol-key v1 p
vol-key {dir}/p/v1
vol-key nosuch p
vol-key nosuch
vol-name {dir}/p/v1
vol-name v1
vol-name nosuch
vol-name
vol-pool {dir}/p/v1
vol-pool v1
vol-pool --uuid {dir}/p/v1
vol-pool nosuch
vol-pool
"""

CHANGE = """
vol-create-as p v1 10M
vol-create-as p v2.qcow2 10M --format qcow2
vol-create-as p v3 10M --allocation 2M
vol-create-as p v4 10M --allocation 0
vol-create-as p v.vmdk 10M --format vmdk
vol-create-as p d.dir 0 --format dir
vol-resize v1 20M p
vol-info v1 p
vol-resize v1 5M p
vol-resize v1 5M p --shrink
vol-resize v1 1M p --delta
vol-resize v1 +1M p
vol-resize v1 -1M p --shrink --delta
vol-resize v1 -1M p --delta
vol-resize v1 -1M p
vol-info v1 p
vol-resize v3 30M p --allocate
vol-info v3 p
vol-resize v4 5M p --shrink
vol-resize v4 5M p
vol-info v4 p
vol-resize v2.qcow2 20M p
vol-resize v2.qcow2 15M p --shrink
vol-resize v2.qcow2 15M p
vol-resize v2.qcow2 10M p
vol-resize v2.qcow2 30M p --allocate
vol-resize v.vmdk 30M p
vol-resize d.dir 30M p
vol-resize nosuch 30M p
vol-resize v1 30M nosuch
vol-resize v1 10X p
vol-resize v1 x p
vol-resize v1 900T p
vol-resize v1 p
vol-resize v1
vol-resize
vol-resize {dir}/p/v4 6M
vol-wipe v3 p
vol-wipe v3 p --algorithm zero
vol-wipe v3 p --algorithm nnsa
vol-wipe v3 p --algorithm dod
vol-wipe v3 p --algorithm bsi
vol-wipe v3 p --algorithm schneier
vol-wipe v3 p --algorithm random
vol-wipe v3 p --algorithm trim
vol-wipe v3 p --algorithm bogus
vol-wipe v3 p --algorithm
vol-wipe d.dir p
vol-wipe nosuch p
vol-wipe
vol-wipe v4 p
vol-info v4 p
vol-clone v1 v1c p
vol-clone v1 v1c p
vol-clone v2.qcow2 v2c.qcow2 p
vol-clone v2.qcow2 v2m.qcow2 p --prealloc-metadata
vol-clone v1 v1m p --prealloc-metadata
vol-clone v2.qcow2 v2d.qcow2 p --reflink
vol-clone v1 v1r p --reflink
vol-clone nosuch x p
vol-clone v1 a/b p
vol-clone v1 '' p
vol-clone v.vmdk v2.vmdk p
vol-clone v1 cp --newname p
vol-clone v1 cpx p --print-xml
vol-clone v1
vol-clone
vol-clone {dir}/p/v1 fullpath
pool-refresh p
vol-dumpxml v2c.qcow2 p
vol-dumpxml v1c p
vol-create-from p from.xml v1 --inputpool p
vol-create-from p from.xml v1 --inputpool p
vol-create-from p from.xml v1 --inputpool nosuch
vol-create-from p from.xml nosuch --inputpool p
vol-create-from p smaller.xml v1 --inputpool p
vol-create-from p larger.xml v1 --inputpool p
vol-create-from p nosuch.xml v1
vol-create-from p bad.xml v1
vol-create-from p
vol-create-from q from.xml {dir}/p/v1
vol-list q --details
pool-refresh p
vol-dumpxml from.qcow2 p
vol-info larger p
vol-upload v1 up p
vol-upload v1 up p --offset 1M --length 1M
vol-upload v1 up p --offset 1048576 --length 1048576
vol-upload v1 up p --offset 0 --length 4096
vol-upload v1 up p --length 1
vol-upload v4 up p --sparse
vol-upload v1 nosuch p
vol-upload v1 q p
vol-upload d.dir up p
vol-upload nosuch up p
vol-upload v1
vol-upload
vol-upload v1 up nosuch
vol-upload v1 up p --offset -1
vol-upload v1 up p --offset 99999999999999999999
vol-info v1 p
vol-info v4 p
vol-download v1 dl p
vol-download v1 dl1 p --offset 1M --length 4096
vol-download v1 dl2 p --offset 1048576 --length 4096
vol-download v1 dl3 p --offset 943718400
vol-download v1 dl4 p --length 100
vol-download v4 dl5 p --sparse
vol-download v2.qcow2 dl6 p
vol-download nosuch dl8 p
vol-download v1 nosuchdir/x p
vol-download v1
vol-download
vol-delete v1c p
vol-delete v1c p
vol-delete d.dir p
vol-delete {dir}/p/v3
vol-delete v.vmdk p --delete-snapshots
vol-delete v.vmdk p
vol-delete nosuch
vol-delete nosuch p
vol-delete
vol-list p
pool-destroy p
vol-list p
vol-info v1 p
vol-create-as p late 1M
vol-delete v1 p
vol-name {dir}/p/v1
vol-resize v1 1G p
vol-clone v1 late p
vol-wipe v1 p
vol-upload v1 up p
vol-dumpxml v1 p
vol-path v1 p
vol-path {dir}/p/v1
"""


def prepared(ranch: Ranch) -> None:
    """Two pools, p and q, and the documents that the commands name."""
    for name in "pq":
        for command in ("pool-define-as {} dir --target {{dir}}/{}", "pool-build {}", "pool-start {}"):
            ranch.check(*command.format(name, name).split())
    body = "<name>{}</name><capacity unit='M'>{}</capacity><target><format type='{}'/>{}</target>"
    for name, text in {
        "bad": "<volume><name>x</name>",
        "noname": "<volume><capacity>1</capacity></volume>",
        "nocap": "<volume><name>x</name></volume>",
        "full": "<volume type='file'>\n<name>full.qcow2</name>\n<key>ignored</key>\n<capacity unit='MiB'>7</capacity>\n"
        "<allocation unit='KB'>300</allocation>\n<target><path>/ignored</path><format type='qcow2'/><permissions>"
        "<mode>0640</mode><owner>0</owner><group>0</group></permissions><compat>1.1</compat></target></volume>",
        "features": volume(
            body.format("features.qcow2", 4, "qcow2", "<compat>1.1</compat><features><lazy_refcounts/></features>")
        ),
        "clusters": volume(body.format("clusters.qcow2", 4, "qcow2", "<clusterSize unit='KiB'>128</clusterSize>")),
        "compat": volume(body.format("compat.qcow2", 4, "qcow2", "<compat>0.10</compat>")),
        "badcompat": volume(body.format("bc.qcow2", 4, "qcow2", "<compat>1.x</compat>")),
        "badunit": "<volume><name>x</name><capacity unit='furlong'>1</capacity></volume>",
        "overflow": "<volume><name>x</name><capacity unit='E'>17</capacity></volume>",
        "backing": "<volume><name>b.qcow2</name><capacity unit='M'>12</capacity><target><format type='qcow2'/></target>"
        "<backingStore><path>{dir}/p/v2.qcow2</path><format type='qcow2'/></backingStore></volume>",
        "nobacking": "<volume><name>nb.qcow2</name><capacity unit='M'>12</capacity><target><format type='qcow2'/></target>"
        "<backingStore><path>{dir}/p/nosuch</path><format type='qcow2'/></backingStore></volume>",
        "blocktype": "<volume type='block'><name>bt</name><capacity unit='M'>1</capacity></volume>",
        "badtype": "<volume type='bogus'><name>bt2</name><capacity unit='M'>1</capacity></volume>",
        "mode": volume(body.format("mode", 1, "raw", "<permissions><mode>0644</mode></permissions>")),
        "badmode": volume(body.format("badmode", 1, "raw", "<permissions><mode>99</mode></permissions>")),
        "unknown": "<volume><name>unk</name><capacity unit='M'>1</capacity><bogus/></volume>",
        "from": volume(body.format("from.qcow2", 20, "qcow2", "")),
        "raw": volume(body.format("raw", 30, "raw", "")),
        "smaller": volume(body.format("smaller", 1, "raw", "")),
        "larger": volume(body.format("larger", 40, "raw", "")),
    }.items():
        ranch.file(f"{name}.xml", text)
    ranch.file("up", bytes(range(256)) * 4096 * 5)


def volume(inner: str) -> str:
    return f"<volume>{inner}</volume>"


@pytest.mark.parametrize("course", ["CREATE", "CHANGE"])
def test_course_of_commands(ranch: Ranch, course: str) -> None:
    prepared(ranch)
    ranch.check_all(globals()[course].strip().splitlines(), mask=MASK)
    # and the same files with the same contents
    trees = []
    for folder in ranch.folders.values():
        tree: dict[str, object] = {}
        for path in sorted(folder.rglob("*")):
            name = str(path.relative_to(folder))
            if path.is_file() and name != "dl6":  # the bytes of a qcow2 image
                tree[name] = path.stat().st_mode & 0o777, path.stat().st_size
                if path.suffix == ".qcow2" and path.parent.name in "pq":
                    judges.run("qemu-img", "check", "-q", "-U", str(path))
                elif path.suffix not in (".xml", ".vmdk"):
                    tree[name] = path.read_bytes() if path.stat().st_size < 1 << 26 else os.path.getsize(path)
        trees.append(tree)
    assert sorted(trees[1]) == sorted(trees[0])
    wrong = [name for name in trees[0] if not name.endswith(".qcow2") and trees[1][name] != trees[0][name]]
    assert not wrong


def test_chosen_differences(ranch: Ranch) -> None:
    """What docs/differences-virsh.md says of volumes is so: in both tools."""
    prepared(ranch)
    ranch.check("vol-create-as", "p", "v2.qcow2", "15M", "--format", "qcow2")
    ranch.check("vol-create-as", "p", "base.qcow2", "1M", "--format", "qcow2")
    ranch.check("vol-create-as", "p", "d.dir", "0", "--format", "dir")
    for name in ("one", "two"):
        words = ["vol-create-as", "p", f"{name}.qcow2", "1M", "--format", "qcow2", "--backing-vol", "base.qcow2"]
        ranch.check(*words, "--backing-vol-format", "qcow2")

    def differs(command: str, real_code: int, ours_code: int, text: str) -> None:
        real, ours = ranch.both(*command.split())
        assert (real.code, ours.code) == (real_code, ours_code), real.text() + ours.text()
        assert text in ours.stderr + ours.stdout, ours.text()

    differs("vol-create p full.xml --validate", 1, 0, "Vol full.qcow2 created")
    differs("vol-clone d.dir d2.dir p", 0, 1, "d.dir")
    differs("vol-download d.dir dl p", 1, 1, "Is a directory")
    differs("vol-delete base.qcow2 p", 0, 1, "volume 'base.qcow2' is the backing file of 'one.qcow2'")
    # made without qemu-img, which writes a first block
    ranch.check("vol-create-as", "p", "v.iso", "10M", "--format", "iso")
    # a raw clone is as large as was asked for
    differs("vol-create-from q raw.xml v2.qcow2 --inputpool p", 0, 0, "Vol raw created")
    real, ours = ranch.both("vol-info", "raw", "q", "--bytes")
    assert f"Capacity:       {15 << 20} bytes" in real.stdout and f"Capacity:       {30 << 20} bytes" in ours.stdout
    # bytes behind a volume's end
    ranch.check("vol-create-as", "p", "small", "1M")
    differs("vol-upload small up p", 0, 1, "small")
    assert "1.00 MiB" in ranch.both("vol-info", "small", "p")[1].stdout
    done = ranch.ours.run(["vol-upload", "small", str(ranch.folders["ours"] / "up"), "p", "--resize"])
    assert done.code == 0, done.text()
    assert ranch.both("vol-info", "small", "p")[0].stdout == ranch.both("vol-info", "small", "p")[1].stdout
