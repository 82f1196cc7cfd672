"""Commands of guestfish that are not carried out here: the one table of their names, why, and what to do instead."""

from __future__ import annotations

from ..fish import Failed, Fish
from ..table import command

_KERNEL = "needs a running guest kernel, and cowshed starts none"
_BTRFS = "btrfs is known by its name, but neither read nor changed here"
_NTFS = "NTFS is known by its name, but neither read nor changed here"

#: (names, with aliases behind a slash; why; what to do instead)
REFUSED = (
    # programs of the guest, and what only a kernel has
    ("command command-lines sh sh-lines", _KERNEL, "start the guest itself to run its programs"),
    ("dmesg modprobe utsname", _KERNEL, "what the guest logged is in its files: journal-open, cat"),
    (
        "swapon-device swapon-file swapon-label swapon-uuid swapoff-device swapoff-file swapoff-label swapoff-uuid",
        _KERNEL,
        "mkswap, swap-get-label and set-uuid need none",
    ),
    (
        "inotify-add-watch inotify-close inotify-files inotify-init inotify-read inotify-rm-watch",
        _KERNEL,
        "nobody else changes the files meanwhile: compare what find or checksums-out say",
    ),
    ("getcon setcon", _KERNEL, "a file's context is the attribute security.selinux: lgetxattr, lsetxattr"),
    ("blockdev-setro blockdev-setrw blockdev-setra", _KERNEL, "add a disk with readonly:true, or mount-ro"),
    (
        "selinux-relabel",
        "needs the policy and the programs of the guest",
        "touch /.autorelabel: the guest does it when it starts; one file's label: lsetxattr security.selinux",
    ),
    (
        "grub-install extlinux syslinux",
        "boot loaders are installed by their own programs, and none is run here",
        "run it in the guest, or write a boot sector with upload-offset or pwrite-device",
    ),
    # between the host and the guest
    ("mount-9p list-9p", "9p support was removed in libguestfs 1.48, and is not here either", "copy-in and copy-out"),
    (
        "mount-local mount-local-run umount-local",
        "no file system of the host is served (FUSE)",
        "copy-out, tar-out, or cowshed.guest.open and fsspec from Python",
    ),
    ("rsync rsync-in rsync-out", "rsync is not run here", "copy-in and copy-out, tar-in and tar-out"),
    # the machine that libguestfs starts, and the library that it is
    ("config", "options of a hypervisor mean nothing here: none is started", ""),
    ("c-pointer", "there is no handle of a C library here", "cowshed.guest.open in Python"),
    ("debug debug-upload internal-exit", "looks into the machine that libguestfs starts: none is started here", ""),
    (
        "get-libvirt-requested-credential-challenge get-libvirt-requested-credential-defresult "
        "get-libvirt-requested-credential-prompt get-libvirt-requested-credentials set-libvirt-requested-credential "
        "set-libvirt-supported-credentials",
        "no libvirt is asked, so that it asks for no credentials: domains are read from their documents",
        "add-domain, or -d",
    ),
    # other people's formats
    (
        "aug-clear aug-close aug-defnode aug-defvar aug-get aug-init aug-insert aug-label aug-load aug-ls aug-match "
        "aug-mv aug-rm aug-save aug-set aug-setm aug-transform",
        "the trees that Augeas makes of configuration files are not here",
        "edit, or download, change and upload",
    ),
    ("yara-destroy yara-load yara-scan", "there is no YARA here", "download, and scan with yara on the host"),
    (
        "btrfs-balance/btrfs-filesystem-balance btrfs-balance-cancel btrfs-balance-pause btrfs-balance-resume "
        "btrfs-balance-status btrfs-device-add btrfs-device-delete btrfs-filesystem-defragment "
        "btrfs-filesystem-resize btrfs-filesystem-show btrfs-filesystem-sync btrfs-fsck btrfs-image "
        "btrfs-qgroup-assign btrfs-qgroup-create btrfs-qgroup-destroy btrfs-qgroup-limit btrfs-qgroup-remove "
        "btrfs-qgroup-show btrfs-quota-enable btrfs-quota-rescan btrfs-replace btrfs-rescue-chunk-recover "
        "btrfs-rescue-super-recover btrfs-scrub-cancel btrfs-scrub-resume btrfs-scrub-start btrfs-scrub-status "
        "btrfs-set-seeding btrfs-subvolume-create/btrfs-subvolume-create-opts btrfs-subvolume-delete "
        "btrfs-subvolume-get-default btrfs-subvolume-list btrfs-subvolume-set-default btrfs-subvolume-show "
        "btrfs-subvolume-snapshot/btrfs-subvolume-snapshot-opts btrfstune-enable-extended-inode-refs "
        "btrfstune-enable-skinny-metadata-extent-refs btrfstune-seeding mkfs-btrfs",
        _BTRFS,
        "copy the device out with download, and use btrfs-progs on it",
    ),
    (
        "ntfs-3g-probe ntfscat-i ntfsclone-in ntfsclone-out ntfsfix ntfsresize/ntfsresize-opts ntfsresize-size",
        _NTFS,
        "copy the device out with download, and use ntfs-3g's programs on it",
    ),
    ("f2fs-expand", "F2FS is not known here", "copy the device out with download, and use f2fs-tools on it"),
    ("mksquashfs", "squashfs is not made here", "tar-out, and sqfstar on the host"),
    (
        "ldmtool-create-all ldmtool-diskgroup-disks ldmtool-diskgroup-name ldmtool-diskgroup-volumes "
        "ldmtool-remove-all ldmtool-scan ldmtool-scan-devices ldmtool-volume-hint ldmtool-volume-partitions "
        "ldmtool-volume-type",
        "dynamic disks of Windows are not put together here",
        "give the disks to a machine that has ldmtool",
    ),
    (
        "md-create md-detail md-stat md-stop",
        "software RAID of Linux is known by its name, but not put together here",
        "give the disks to a machine that has mdadm",
    ),
    (
        "luks-add-key luks-format luks-format-cipher luks-kill-slot",
        "LUKS is opened here (cryptsetup-open), but neither made nor given other keys",
        "cryptsetup does that on the host, to image files too",
    ),
    # what file systems are still to learn
    (
        "mke2fs-J mke2fs-JL mke2fs-JU mke2journal mke2journal-L mke2journal-U",
        "journals on a device of their own are neither made nor replayed here",
        "mke2fs, which puts the journal inside",
    ),
    ("resize2fs-M", "ext file systems grow here, but do not shrink", "copy the files into a smaller one"),
    (
        "xfs-growfs xfs-repair",
        "XFS is read here and its files are edited, but it is neither grown nor repaired",
        "start the guest for xfs_growfs; copy the device out with download for xfs_repair",
    ),
    # long deprecated
    (
        "sfdisk sfdisk-N sfdisk-disk-geometry sfdisk-kernel-geometry sfdisk-l sfdiskM",
        "takes and prints what sfdisk once did, and that is not run here",
        "part-init, part-add, part-disk, part-list and part-get-* do the same",
    ),
)


def _declare(names: str, why: str, instead: str) -> None:
    def refuse(fish: Fish, words: list[str]) -> None:
        raise Failed(f"{why}; instead: {instead}" if instead else why)

    refuse.__qualname__ = names
    own = names.split("/")
    command(
        " ".join(own), "arguments:words", help=f"({why})", internal=own[0].replace("-", "_"), local=True,
        instead=instead,
    )(refuse)  # fmt: skip


for _names, _why, _instead in REFUSED:
    for _one in _names.split():
        _declare(_one, _why, _instead)
