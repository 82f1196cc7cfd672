# ruff: noqa: E501 - command lines and documents are easier to read unbroken
"""Pools from definition to nothing: the same commands to the real virsh and to ours, failing ones included."""

from __future__ import annotations

from pathlib import Path

import pytest

from libvirtd import Ranch

FIGURES = ["figures", "table"]

#: the course: a pool of a directory, from definition to nothing
COURSE = """
pool-list
pool-list --all
pool-define-as guest_images dir - - - - {dir}/images
pool-list --all
pool-info guest_images
pool-dumpxml guest_images
pool-start guest_images
pool-build guest_images
pool-build guest_images
pool-start guest_images
pool-start guest_images
pool-build guest_images
pool-list --all
pool-autostart guest_images
pool-list --all
pool-list --autostart
pool-list --no-autostart
pool-list --all --details
pool-info guest_images
pool-info --bytes guest_images
pool-info --pool guest_images --bytes
pool-uuid guest_images
pool-refresh guest_images
pool-dumpxml guest_images
pool-dumpxml guest_images --inactive
pool-dumpxml guest_images --xpath //path/text()
pool-dumpxml guest_images --xpath //nosuch
pool-dumpxml guest_images --xpath //target --wrap
vol-create-as guest_images disk1.qcow2 8G --format qcow2
vol-create-as guest_images disk2 20M
vol-list guest_images
vol-list guest_images --details
vol-info disk1.qcow2 guest_images
vol-info disk1.qcow2 --pool guest_images --bytes
vol-path disk1.qcow2 guest_images
vol-key disk1.qcow2 guest_images
vol-clone disk2 disk3 guest_images
vol-resize disk2 30M guest_images
vol-wipe disk3 guest_images
vol-delete disk3 guest_images
vol-delete disk2 --pool guest_images
vol-delete disk1.qcow2 guest_images
vol-list guest_images
pool-autostart guest_images --disable
pool-autostart guest_images --disable
pool-undefine guest_images
pool-delete guest_images
pool-destroy guest_images
pool-destroy guest_images
pool-refresh guest_images
pool-list --all
pool-delete guest_images
pool-delete guest_images
pool-start guest_images
pool-undefine guest_images
pool-undefine guest_images
pool-list --all
"""

#: transient pools, and definitions over what is there
SHAPES = """
pool-create-as t1 dir --target {dir}/t1
pool-create-as t1 dir --target {dir}/t1 --build
pool-create-as t1 dir --target {dir}/t1
pool-create-as t2 dir --target {dir}/t1
pool-create-as t2 dir --target {dir}/t1 --build --overwrite
pool-create-as t3 dir --target {dir}/t3 --build --no-overwrite
pool-create-as t4 dir --target {dir}/t4 --build --overwrite --no-overwrite
pool-create-as t4 dir --target {dir}/t4 --overwrite
pool-info t1
pool-autostart t1
pool-undefine t1
pool-delete t1
pool-build t1
pool-list
pool-list --transient
pool-list --persistent
pool-list --inactive
pool-list --all --name
pool-list --all --uuid
pool-list --all --name --uuid
pool-list --details --uuid
pool-list --details --name
pool-list --type dir
pool-list --type dir,fs,netfs
pool-list --type logical
pool-list --type nosuch
pool-list --type dir,nosuch
pool-list --all --transient --persistent
pool-list --inactive --transient
pool-list --all --details --type dir
pool-dumpxml t1 --inactive
pool-define-as t1 dir --target {dir}/t1
pool-define t1.xml
pool-define t1-other.xml
pool-info t1
pool-autostart t1
pool-list --persistent
pool-dumpxml t1 --inactive
pool-destroy t3
pool-info t3
pool-name 6b26e3c4-24d2-4b5c-8b4e-3f6b0a4c9d01
pool-name t1
pool-name nosuch
pool-uuid t1
pool-uuid nosuch
pool-uuid 6b26e3c4-24d2-4b5c-8b4e-3f6b0a4c9d01
pool-info 6b26e3c4-24d2-4b5c-8b4e-3f6b0a4c9d01
pool-destroy t1
pool-define t1-renamed.xml
pool-define t1-moved.xml
pool-dumpxml t1
pool-dumpxml t1 --inactive
pool-build t1 --overwrite
pool-build t1 --no-overwrite
pool-build t1 --overwrite --no-overwrite
pool-build nosuch
pool-start t1 --build
pool-define t1-other.xml
pool-dumpxml t1
pool-dumpxml t1 --inactive
pool-destroy t1
pool-dumpxml t1
pool-start t1 --build --overwrite
pool-start t1 --build --no-overwrite --overwrite
pool-build t1
pool-start nosuch
pool-refresh nosuch
pool-destroy nosuch
pool-delete nosuch
pool-undefine nosuch
pool-autostart nosuch
pool-autostart nosuch --disable
pool-info nosuch
pool-dumpxml nosuch
pool-dumpxml nosuch --inactive
pool-edit nosuch
vol-list nosuch
pool-destroy t1
pool-delete t1
pool-undefine t1
pool-create full.xml
pool-create full.xml --build
pool-dumpxml full
pool-destroy full
pool-define full.xml
pool-dumpxml full
pool-dumpxml full --inactive
pool-start full
pool-dumpxml full
pool-destroy full
pool-delete full
pool-undefine full
"""

#: command lines that are wrong in themselves
USAGE = """
pool-define-as
pool-define-as x
pool-define-as x nosuch
pool-define-as x dir
pool-define-as x dir --target
pool-define-as x dir --nosuch
pool-define-as x dir --target {dir}/x --target {dir}/y
pool-define-as x dir a b c d e f g h i j k l m n o p
pool-define-as x fs --target {dir}/x
pool-define-as x netfs --target {dir}/x --source-path /y
pool-define-as x disk --target /dev
pool-define-as x rbd --source-name p
pool-define-as x/y dir --target {dir}/x
pool-define-as . dir --target {dir}/x
pool-define-as .. dir --target {dir}/x
pool-define-as '' dir --target {dir}/x
pool-define-as ' ' dir --target {dir}/x
pool-define-as x dir --target {dir}/x --print-xml
pool-define-as x fs --source-dev /dev/sdz1 --source-format ext4 --target {dir}/x --print-xml
pool-define-as x netfs --source-host h --source-path /p --source-format nfs --source-protocol-ver 4 --target /m --print-xml
pool-define-as x iscsi --source-host h --source-dev iqn.a --auth-type chap --auth-username u --secret-usage s --target /d --print-xml
pool-define-as x iscsi-direct --source-host h --source-dev iqn.a --source-initiator iqn.b --print-xml
pool-define-as x rbd --source-host h --source-name p --auth-type ceph --auth-username u --secret-uuid 6b26e3c4-24d2-4b5c-8b4e-3f6b0a4c9d01 --print-xml
pool-define-as x scsi --adapter-name scsi_host5 --target /dev/disk/by-path --print-xml
pool-define-as x scsi --adapter-wwnn 20000000c9831b4b --adapter-wwpn 10000000c9831b4b --adapter-parent scsi_host3 --target /dev --print-xml
pool-define-as x logical --source-dev /dev/sdy --source-name vg0 --target /dev/vg0 --print-xml
pool-create-as x dir --target {dir}/x --print-xml
pool-create-as x dir --print-xml
pool-create-as
pool-create-as x
pool-create-as x dir
pool-create-as x nosuch --target {dir}/x
pool-define
pool-define nosuch.xml
pool-define broken.xml
pool-define notpool.xml
pool-define notype.xml
pool-define badtype.xml
pool-define noname.xml
pool-define notarget.xml
pool-define slash.xml
pool-define baduuid.xml
pool-define badmode.xml
pool-define badowner.xml
pool-define nohost.xml
pool-define empty.xml
pool-define plain.xml
pool-define unknown.xml
pool-undefine unknown-element
pool-define --validate unknown.xml
pool-define --validate full.xml
pool-undefine full
pool-create
pool-create nosuch.xml
pool-create broken.xml
pool-create --validate unknown.xml
pool-build
pool-build x --nosuch
pool-start
pool-start x --nosuch
pool-destroy
pool-delete
pool-undefine
pool-refresh
pool-info
pool-info x y
pool-info --pool
pool-name
pool-uuid
pool-autostart
pool-autostart x --disable --disable
pool-list x
pool-list --nosuch
pool-list --type
pool-list --all=1
pool-list --al
pool-list -a
pool-dumpxml
pool-edit
pool-event
pool-event --event nosuch
pool-event --list
pool-event --event lifecycle --timeout 0
pool-event --event lifecycle --timeout x
pool-event --event lifecycle --timeout -1
pool-capabilities x
pool-nosuch
find-storage-pool-sources
find-storage-pool-sources dir
find-storage-pool-sources nosuch
find-storage-pool-sources logical nosuch.xml
find-storage-pool-sources-as
find-storage-pool-sources-as dir
find-storage-pool-sources-as nosuch
find-storage-pool-sources-as disk
find-storage-pool-sources-as netfs
find-storage-pool-sources-as iscsi
"""


def documents(ranch: Ranch) -> None:
    uuid = "6b26e3c4-24d2-4b5c-8b4e-3f6b0a4c9d01"
    ranch.file("t1.xml", "<pool type='dir'><name>t1</name><target><path>{dir}/t1</path></target></pool>")
    ranch.file("t1-other.xml", "<pool type='dir'><name>t1</name><target><path>{dir}/t1b</path></target></pool>")
    ranch.file(
        "t1-renamed.xml",
        f"<pool type='dir'><name>t9</name><uuid>{uuid}</uuid><target><path>{{dir}}/t9</path></target></pool>",
    )
    ranch.file(
        "t1-moved.xml",
        f"<pool type='dir'><name>t1</name><uuid>{uuid}</uuid><target><path>{{dir}}/t1c</path></target></pool>",
    )
    ranch.file(
        "full.xml",
        "<pool type='dir'>\n <name>full</name>\n <uuid>0c4f7ee0-6d8b-4a05-9d0f-0d0b0b7c5f11</uuid>\n"
        " <capacity unit='KiB'>1</capacity><allocation>7</allocation>\n <features><cow state='no'/></features>\n"
        " <source/>\n <target><path>{dir}/full</path><permissions><mode>0750</mode><owner>0</owner><group>0</group>"
        "</permissions></target>\n</pool>\n",
    )
    for name, text in {
        "broken": "<pool type='dir'><name>x</name>\n<target></pool>",
        "notpool": "<domain/>",
        "notype": "<pool><name>x</name></pool>",
        "badtype": "<pool type='bogus'><name>x</name></pool>",
        "noname": "<pool type='dir'></pool>",
        "notarget": "<pool type='dir'><name>x</name></pool>",
        "slash": "<pool type='dir'><name>a/b</name><target><path>/x</path></target></pool>",
        "baduuid": "<pool type='dir'><name>x</name><uuid>zz</uuid><target><path>/x</path></target></pool>",
        "badmode": "<pool type='dir'><name>x</name><target><path>/x</path><permissions><mode>9</mode></permissions></target></pool>",
        "badowner": "<pool type='dir'><name>x</name><target><path>/x</path><permissions><owner>q</owner></permissions></target></pool>",
        "nohost": "<pool type='netfs'><name>x</name><source><dir path='/d'/></source><target><path>/x</path></target></pool>",
        "empty": "",
        "plain": "not xml",
        "unknown": "<pool type='dir'><name>unknown-element</name><bogus/><target><path>/x</path></target></pool>",
    }.items():
        ranch.file(f"{name}.xml", text)


@pytest.mark.parametrize("course", ["COURSE", "SHAPES", "USAGE"])
def test_course_of_commands(ranch: Ranch, course: str) -> None:
    documents(ranch)
    ranch.check_all(globals()[course].strip().splitlines(), mask=FIGURES)


def test_state_files_are_the_same(ranch: Ranch) -> None:
    """What lies under /etc and /run after some commands: the same names, modes and bytes."""
    for command in (
        "pool-define-as p1 dir --target {dir}/p1",
        "pool-build p1",
        "pool-start p1",
        "pool-autostart p1",
        "pool-define-as p2 dir --target {dir}/p2",
        "pool-create-as tr dir --target {dir}/tr --build",
    ):
        ranch.check(*command.split())
    trees = []
    for side, config, run in (
        ("real", ranch.daemon.folder / "etc", ranch.daemon.folder / "run"),
        ("ours", ranch.ours.root / "etc/libvirt", ranch.ours.root / "run/libvirt"),
    ):
        tree = {}
        for base, label in ((config / "storage", "config"), (run / "storage", "run")):
            for path in sorted(base.rglob("*")):
                name = f"{label}/{path.relative_to(base)}"
                # what only one of them keeps; the real one marks that autostart was run when the daemon starts
                if "cowshed" in name or path.name in ("driver.pid", "autostarted"):
                    continue
                if path.is_symlink():
                    tree[name] = "link to " + Path(path.readlink()).name
                elif path.is_dir():
                    tree[name] = "directory"
                else:
                    text = ranch._masked(path.read_text(), side, [])
                    tree[name] = f"{path.stat().st_mode & 0o777:o}\n{text}"
        trees.append(tree)
    assert trees[1] == trees[0]


def test_what_is_unknown_is_kept(ranch: Ranch) -> None:
    """A chosen difference: libvirt drops elements that it doesn't know."""
    documents(ranch)
    ranch.check("pool-define", "unknown.xml")
    real, ours = ranch.both("pool-dumpxml", "unknown-element")
    assert ours.stdout == real.stdout.replace("</pool>", "  <bogus/>\n</pool>")
