"""Commands of guestfish that are not carried out here, and why."""

from __future__ import annotations

from ..fish import Failed, Fish
from ..table import command

#: they run the guest's programs, or its kernel's code, on the guest
_KERNEL = """
command command-lines sh sh-lines dmesg debug modprobe mount-9p list-9p mount-local mount-local-run umount-local
swapon-device swapon-file swapon-label swapon-uuid swapoff-device swapoff-file swapoff-label swapoff-uuid
inotify-add-watch inotify-close inotify-files inotify-init inotify-read inotify-rm-watch utsname grub-install
rsync rsync-in rsync-out selinux-relabel getcon blockdev-setro blockdev-setrw blockdev-setra
"""

#: they work on structures that cowshed does not know, or does not change, yet
_LATER = """
aug-clear aug-close aug-defnode aug-defvar aug-get aug-init aug-insert
aug-label aug-load aug-ls aug-match aug-mv aug-rm aug-save aug-set aug-setm aug-transform
btrfs-balance btrfs-filesystem-show btrfs-fsck btrfs-subvolume-create btrfs-subvolume-delete btrfs-subvolume-list
btrfs-subvolume-show btrfs-subvolume-snapshot
extlinux
ldmtool-scan
luks-add-key luks-format luks-kill-slot
md-create md-detail md-stat md-stop mksquashfs ntfs-3g-probe ntfsclone-in ntfsclone-out ntfsfix ntfsresize
ntfsresize-size resize2fs-M
syslinux vfs-minimum-size
xfs-admin
xfs-growfs xfs-repair yara-load yara-scan
"""


def _declare(name: str, why: str, help: str) -> None:
    def refuse(fish: Fish, words: list[str]) -> None:
        raise Failed(why)

    refuse.__qualname__ = name
    command(name, "arguments:words", help=help)(refuse)


for _name in _KERNEL.split():
    _declare(_name, "needs a running guest kernel, and cowshed starts none", "(needs a running guest kernel)")
for _name in _LATER.split():
    _declare(_name, "is not part of cowshed yet", "(not part of cowshed yet)")
