
"""Pools on block devices, fs and disk: the same commands to the real virsh and to ours, failing ones included."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from libvirtd import Ranch
from loops import loop_device

FS = """
pool-define-as fs1 fs --source-dev {disk} --target {dir}/fs1 --source-format xfs
pool-dumpxml fs1
pool-start fs1
pool-build fs1
pool-build fs1 --no-overwrite
pool-start fs1
pool-build fs1 --overwrite
pool-destroy fs1
pool-build fs1 --overwrite
pool-build fs1
pool-build fs1 --no-overwrite
pool-start fs1
pool-start fs1
pool-info fs1
pool-list --all --details
pool-dumpxml fs1
pool-define-as fs2 fs --source-dev {disk} --target {dir}/fs2
pool-define-as fs3 disk --source-dev {disk} --target /dev
pool-autostart fs1
vol-create-as fs1 v1 10M
vol-create-as fs1 v2.qcow2 10M --format qcow2
vol-create-as fs1 v3 10M --allocation 0
vol-list fs1 --details
vol-info v1 fs1
vol-clone v1 v4 fs1
vol-clone v1 v5 fs1 --reflink
vol-resize v3 20M fs1
vol-upload v3 up fs1
vol-download v3 down fs1
vol-wipe v1 fs1
vol-create-as fs1 huge 10G
vol-create-as fs1 huge 10G --allocation 0
vol-list fs1 --details
vol-delete v1 fs1
vol-delete v2.qcow2 fs1
pool-refresh fs1
pool-delete fs1
pool-undefine fs1
pool-destroy fs1
pool-start fs1
pool-destroy fs1
pool-delete fs1
pool-info fs1
pool-undefine fs1
pool-list --all
pool-create-as fs4 fs --source-dev {disk} --target {dir}/fs4 --source-format ext4
pool-create-as fs4 fs --source-dev {disk} --target {dir}/fs4 --source-format ext4 --build --no-overwrite
pool-create-as fs4 fs --source-dev {disk} --target {dir}/fs4 --source-format ext4 --build --overwrite
pool-dumpxml fs4
vol-create-as fs4 v1 1M
vol-list fs4
pool-destroy fs4
pool-create-as fs5 fs --source-dev {disk} --target {dir}/fs4 --source-format xfs
pool-create-as fs5 fs --source-dev {disk} --target {dir}/fs4 --source-format auto
vol-list fs5
pool-destroy fs5
pool-create-as fs6 fs --source-dev {disk} --target {dir}/fs4
pool-dumpxml fs6
pool-destroy fs6
pool-create-as fs7 fs --source-dev {disk} --target {dir}/fs4 --source-format nosuch
pool-create-as fs8 fs --source-dev /dev/nosuch --target {dir}/fs4 --source-format ext4
pool-create-as fs8 fs --source-dev /dev/nosuch --target {dir}/fs4 --source-format ext4 --build
pool-create-as fs8 fs --source-dev /dev/nosuch --target {dir}/fs4 --source-format ext4 --build --overwrite
pool-list --all
"""

GPT = """
pool-define-as dk1 disk --source-dev {disk} --target /dev --source-format gpt
pool-dumpxml dk1
pool-start dk1
pool-build dk1
pool-build dk1
pool-build dk1 --overwrite
pool-build dk1 --no-overwrite
pool-start dk1
pool-dumpxml dk1
pool-info dk1
pool-autostart dk1
pool-list --all
vol-create-as dk1 {loop}p1 32M
vol-create-as dk1 {loop}p2 32M --format linux
vol-create-as dk1 {loop}p2 32M
vol-create-as dk1 {loop}p3 999M
vol-create-as dk1 {loop}p3 32M --format nosuch
vol-create-as dk1 {loop}p3 16M --format linux-swap
vol-create-as dk1 {loop}p4 10M --format fat32
vol-create-as dk1 {loop}p5 10M --format linux-lvm
vol-list dk1
vol-list dk1 --details
vol-info {loop}p1 dk1
vol-dumpxml {loop}p1 dk1
vol-dumpxml {loop}p3 dk1
vol-path {loop}p1 dk1
vol-key {loop}p1 dk1
pool-dumpxml dk1
pool-info dk1
vol-upload {loop}p1 up dk1
vol-download {loop}p1 down dk1
vol-resize {loop}p1 64M dk1
vol-wipe {loop}p1 dk1
vol-clone {loop}p1 {loop}p6 dk1
vol-list dk1 --details
pool-refresh dk1
vol-list dk1 --details
pool-dumpxml dk1
pool-create-as dk1b disk --source-dev {disk} --target /dev --source-format dos
pool-delete dk1
pool-destroy dk1
pool-create-as dk1b disk --source-dev {disk} --target /dev --source-format dos
pool-start dk1
vol-list dk1
pool-destroy dk1
pool-delete dk1
pool-undefine dk1
pool-create-as dk1b disk --source-dev {disk} --target /dev --source-format dos
pool-create-as dk1b disk --source-dev {disk} --target /dev --source-format dos --build --no-overwrite
pool-create-as dk1b disk --source-dev {disk} --target /dev --source-format nosuch
"""

DOS = """
pool-create-as dk2 disk --source-dev {disk} --target /dev --source-format dos
pool-create-as dk2 disk --source-dev {disk} --target /dev --source-format dos --build
pool-dumpxml dk2
vol-create-as dk2 {loop}p1 50M --format linux
vol-list dk2 --details
vol-dumpxml {loop}p1 dk2
pool-dumpxml dk2
vol-create-as dk2 {loop}p2 100M --format extended
vol-list dk2 --details
vol-dumpxml {loop}p2 dk2
pool-dumpxml dk2
pool-info dk2
pool-refresh dk2
vol-list dk2 --details
vol-create-as dk2 {loop}p3 10M --format linux
vol-list dk2 --details
pool-dumpxml dk2
pool-destroy dk2
"""


@contextlib.contextmanager
def devices(ranch: Ranch, size: int) -> Iterator[None]:
    """A loop device for each side, {disk}, and its name alone, {loop}."""
    with contextlib.ExitStack() as stack:
        for side, folder in ranch.folders.items():
            device = stack.enter_context(loop_device(folder / "disk.img", size))
            ranch.words[side] |= {"{disk}": str(device), "{loop}": device.name}
        yield


@pytest.mark.parametrize(("course", "mebibytes"), [("FS", 600), ("GPT", 300), ("DOS", 200)])
def test_course_of_commands(ranch: Ranch, course: str, mebibytes: int) -> None:
    ranch.file("up", bytes(range(256)) * 4096)
    with devices(ranch, mebibytes << 20):
        ranch.check_all(globals()[course].strip().splitlines())
