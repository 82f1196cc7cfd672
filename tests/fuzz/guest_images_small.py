"""Small sound images that the fuzz targets damage."""

from __future__ import annotations

import os
from pathlib import Path

import judges
from cowshed.guest.filesystem.base import FileSystem

MIB = 1 << 20
NOW = 1_700_000_000 * 10**9

EXT = {
    "ext4": ("-t", "ext4", "-b", "1024", "-I", "256", "-N", "600"),
    "ext4-plain": ("-t", "ext4", "-b", "1024", "-O", "^metadata_csum,^64bit", "-N", "600"),
    "ext4-inline": ("-t", "ext4", "-b", "4096", "-O", "inline_data", "-N", "600"),
    "ext3": ("-t", "ext3", "-b", "1024", "-N", "600"),
    "ext2": ("-t", "ext2", "-b", "1024", "-N", "600"),
}


def ext_image(folder: Path, name: str, *, dirty: bool = False) -> Path:
    path = folder / f"{name}{'-dirty' if dirty else ''}.img"
    if path.exists():
        return path
    making = path.with_suffix(".making")
    with open(making, "wb") as file:
        file.truncate(6 * MIB)
    judges.run("mkfs.ext4", "-q", "-F", *EXT[name], *(("-J", "size=4") if name == "ext4-inline" else ()), making)
    from cowshed.block.protocol.file import FileNode
    from cowshed.guest.filesystem import ext

    with FileNode(str(making), writable=True) as node:
        fs = ext.open(node, True)
        fill(fs, xattrs=True)
        fs.close()
    if dirty:
        # the journal holds the superblock and the group descriptors, as they are, and revokes others
        script = folder / "script"
        data = making.read_bytes()
        for number in (1, 2):
            (folder / f"block{number}").write_bytes(data[number * 1024 : number * 1024 + 1024])
        write = "".join(f"jw -b {number} {folder}/block{number}\n" for number in (1, 2))
        script.write_text(f"jo\n{write}jw -r 70-90\n{write}jc\n")
        judges.run("debugfs", "-w", "-f", script, making, ok=range(256))
    os.rename(making, path)
    return path


def fill(fs: FileSystem, *, xattrs: bool) -> None:
    """Files, directories and links of many shapes, as far as the file system has them."""
    big = fs.create(fs.root, b"directory", 0o040755, 0, 0, NOW)
    for index in range(120):
        ino = fs.create(big, b"a name of some length %d" % index, 0o100644, 0, 0, NOW)
        if index % 10 == 0:
            fs.write(ino, 0, b"content" * index * 3, NOW)
        if xattrs and index % 20 == 0:
            fs.set_xattr(ino, b"user.a", b"v" * (index * 5), NOW)
    inner = fs.create(big, b"inner", 0o040755, 0, 0, NOW)
    fs.create(inner, b"leaf", 0o100600, 1, 2, NOW)
    for index in range(8):
        ino = fs.create(fs.root, b"file %d" % index, 0o100644, 0, 0, NOW)
        fs.write(ino, 0, bytes(range(256)) * (index * 20), NOW)
    if xattrs:
        fs.create(fs.root, b"short link", 0o120777, 0, 0, NOW, target=b"directory/inner")
        fs.create(fs.root, b"long link", 0o120777, 0, 0, NOW, target=b"../" * 40)
        fs.create(fs.root, b"device", 0o020600, 0, 0, NOW, rdev=os.makedev(300, 70_000))
        ino = fs.create(fs.root, b"attributes", 0o100644, 0, 0, NOW)
        for index in range(6):
            fs.set_xattr(ino, b"user.name%d" % index, b"w" * 60, NOW)
        holes = fs.create(fs.root, b"holes", 0o100644, 0, 0, NOW)
        for index in range(150):
            fs.write(holes, index * 9000, b"x" * 1000, NOW)
        fs.link(holes, big, b"hard", NOW)
    fs.sync()


FAT = {"fat12": ("-F", "12", "-s", "2"), "fat16": ("-F", "16", "-s", "1"), "fat32": ("-F", "32", "-s", "1")}


def fat_image(folder: Path, name: str) -> Path:
    path = folder / f"{name}.img"
    if not path.exists():
        with open(path, "wb") as file:
            file.truncate(3 * MIB if name == "fat12" else 5 * MIB)
        judges.run("mkfs.vfat", *FAT[name], path)
        from cowshed.block.protocol.file import FileNode
        from cowshed.guest.filesystem import fat

        with FileNode(str(path), writable=True) as node:
            fs = fat.open(node, writable=True)
            fill(fs, xattrs=False)
            fs.close()
    return path
