"""The judges: real tools that say whether what we wrote is right, and the one place that finds them.

`need("qemu-img")` gives the path of a judge. A missing judge is a loud skip on a laptop and a failure when
the environment says CI=true, so that a green run there means that everything was judged.

`python tests/judges.py` prints the Debian packages of the judges that are missing here (`make judges`
installs them).
"""

from __future__ import annotations

import functools
import glob
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

# judge -> Debian package
PACKAGES = {
    "qemu-img": "qemu-utils",
    "qemu-io": "qemu-utils",
    "qemu-nbd": "qemu-utils",
    "mkfs.ext4": "e2fsprogs",
    "e2fsck": "e2fsprogs",
    "debugfs": "e2fsprogs",
    "dumpe2fs": "e2fsprogs",
    "tune2fs": "e2fsprogs",
    "lsattr": "e2fsprogs",
    "mkfs.xfs": "xfsprogs",
    "xfs_admin": "xfsprogs",
    "xfs_repair": "xfsprogs",
    "xfs_db": "xfsprogs",
    "xfs_logprint": "xfsprogs",
    "mkfs.btrfs": "btrfs-progs",
    "losetup": "mount",
    "mount": "mount",
    "umount": "mount",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "virsh": "libvirt-clients",
    "libvirtd": "libvirt-daemon-system",
    "xmllint": "libxml2-utils",
    "sgdisk": "gdisk",
    "partx": "util-linux",
    "/usr/lib/libvirt/libvirt_parthelper": "libvirt-daemon",
    "parted": "parted",
    "sfdisk": "fdisk",
    "iscsi-ls": "libiscsi-bin",
    "lvm": "lvm2",
    "mkfs.ext2": "e2fsprogs",
    "mkfs.ext3": "e2fsprogs",
    "mkfs.vfat": "dosfstools",
    "fsck.vfat": "dosfstools",
    "mdir": "mtools",
    "mcopy": "mtools",
    "mmd": "mtools",
    "mattrib": "mtools",
    "minfo": "mtools",
    "genisoimage": "genisoimage",
    "isoinfo": "genisoimage",
    "mkzftree": "genisoimage",
    "xorriso": "xorriso",
    "bsdtar": "libarchive-tools",
    "cryptsetup": "cryptsetup-bin",
    "rpm": "rpm",
    "db5.3_load": "db5.3-util",
    "dpkg-query": "dpkg",
    "rpmbuild": "rpm",
    "mkswap": "util-linux",
    "blkid": "util-linux",
    "glusterd": "glusterfs-server",
    "gluster": "glusterfs-cli",
    "mount.glusterfs": "glusterfs-client",
    "tmux": "tmux",
    "vi": "vim-tiny",
    "tgtd": "tgt",
    "tgtadm": "tgt",
    "scrub": "scrub",
    "hivexsh": "libhivex-bin",
    "hivexregedit": "libwin-hivex-perl",
    "/usr/lib/systemd/systemd-journal-remote": "systemd-journal-remote",
    "journalctl": "systemd",
    "cpio": "cpio",
    "lz4": "lz4",
    "zstd": "zstd",
    "gzip": "gzip",
    "bzip2": "bzip2",
    "xz": "xz-utils",
    "lzma": "xz-utils",
    "fls": "sleuthkit",
    "icat": "sleuthkit",
    "blkls": "sleuthkit",
    "guestfish": "guestfish",
    "virt-cat": "guestfs-tools",
    "virt-df": "guestfs-tools",
    "virt-edit": "guestfs-tools",
    "virt-filesystems": "guestfs-tools",
    "virt-inspector": "guestfs-tools",
    "virt-ls": "guestfs-tools",
    "virt-tail": "guestfs-tools",
    "virt-log": "guestfs-tools",
    "virt-copy-in": "guestfish",
    "virt-copy-out": "guestfish",
    "virt-tar-in": "guestfish",
    "virt-tar-out": "guestfish",
}

# Packages without a program of their own that a judge needs: file (a pattern of names) -> Debian package.
PARTS = {
    # guestfish starts a virtual machine, whose kernel is the host's, though the host may run another
    "/boot/vmlinuz-*": "linux-image-amd64",
    "/usr/lib/x86_64-linux-gnu/libvirt/storage-backend/libvirt_storage_backend_iscsi-direct.so": (
        "libvirt-daemon-driver-storage-iscsi-direct"
    ),
}

# System administrators' tools are not on everyone's PATH, and we need them without being root.
SEARCH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"])

# What the skip reason of a missing judge begins with: conftest.py collects those for the closing summary.
MISSING = "judge missing: "


def find(name: str) -> str | None:
    """The path of judge NAME, or None. Names a table entry, so that `make judges` knows how to get it."""
    if name not in PACKAGES:
        raise KeyError(f"{name} is not in tests/judges.py PACKAGES; add it with its Debian package")
    return shutil.which(name, path=SEARCH)


def absent(reason: str) -> None:
    """Skip the running test (or the module being collected); on CI fail it instead."""
    import pytest

    if os.environ.get("CI", "").lower() in ("true", "1", "yes"):
        pytest.fail(MISSING + reason, pytrace=False)
    pytest.skip(MISSING + reason, allow_module_level=True)


def need(name: str) -> str:
    """The path of judge NAME; without it the test is skipped, or fails on CI."""
    path = find(name)
    if path is None:
        absent(f"{name} (Debian package {PACKAGES[name]})")
        raise AssertionError("unreachable")
    return path


@functools.cache
def version(name: str) -> tuple[int, ...]:
    """The version a QEMU tool reports, as numbers: (7, 2, 22)."""
    out = subprocess.run([need(name), "--version"], capture_output=True, text=True, timeout=60).stdout
    match = re.search(r"version (\d+(?:\.\d+)+)", out)
    if match is None:
        raise AssertionError(f"{name} --version says no version: {out!r}")
    return tuple(int(part) for part in match[1].split("."))


def need_series(name: str, series: tuple[int, ...] = (7, 2)) -> str:
    """As need(), for tests that compare text: the judge must be of release SERIES, whose text ours is."""
    path = need(name)
    found = version(name)
    if found[: len(series)] != series:
        wanted = ".".join(map(str, series))
        absent(f"{name} {wanted}: the one here is {'.'.join(map(str, found))}")
    return path


def run(
    name: str,
    *args: str | os.PathLike[str],
    ok: Iterable[int] = (0,),
    cwd: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
    input: str | None = None,
    timeout: float = 300,
) -> subprocess.CompletedProcess[str]:
    """Run a judge and return its outcome; an exit code not in OK fails the test with all it printed."""
    argv = [need(name), *(os.fspath(arg) for arg in args)]
    done = subprocess.run(
        argv,
        capture_output=True,
        text=True,
        errors="surrogateescape",
        cwd=cwd,
        env=None if env is None else {**os.environ, **env},
        input=input,
        stdin=subprocess.DEVNULL if input is None else None,
        timeout=timeout,
    )
    if done.returncode not in tuple(ok):
        raise AssertionError(f"{' '.join(argv)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done


def qemu_img(*args: str | os.PathLike[str], ok: Iterable[int] = (0,), **kw: object) -> str:
    """The real qemu-img's standard output."""
    return run("qemu-img", *args, ok=ok, **kw).stdout  # type: ignore[arg-type]


def qemu_io(
    image: str | os.PathLike[str], *commands: str, fmt: str | None = None, options: Iterable[str] = ()
) -> str:
    """Run qemu-io COMMANDS on IMAGE; a command that fails, or a pattern that differs, fails the test."""
    argv = [*options, *(("-f", fmt) if fmt else ())]
    for command in commands:
        argv += ["-c", command]
    done = run("qemu-io", *argv, image)
    if "Pattern verification failed" in done.stdout or " failed:" in done.stdout:
        raise AssertionError(f"qemu-io {image} {commands}: {done.stdout}{done.stderr}")
    return done.stdout


def missing_packages() -> list[str]:
    """Debian packages of the judges that are not here, sorted."""
    packages = {PACKAGES[name] for name in PACKAGES if find(name) is None}
    # the parts' places and packages are named after the machine's architecture; elsewhere they can't be asked for
    if os.uname().machine == "x86_64":
        packages |= {package for pattern, package in PARTS.items() if not glob.glob(pattern)}
    return sorted(packages)


def ext4_image(path: Path, size: int, content: Path | None = None) -> Path:
    """A raw image of SIZE bytes with an ext4 file system that holds the tree CONTENT (no root needed)."""
    with open(path, "wb") as file:
        file.truncate(size)
    argv: list[str | os.PathLike[str]] = ["-q", "-F", "-E", "root_owner=0:0"]
    if content is not None:
        argv += ["-d", content]
    run("mkfs.ext4", *argv, path)
    return path


if __name__ == "__main__":
    print(" ".join(missing_packages()))
