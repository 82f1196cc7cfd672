"""What each type of pool is made of: the parts of its source, its formats, and those of its volumes. One table."""

from __future__ import annotations


class Kind:
    """One type of pool.

    ``source`` are the parts of ``<source>`` that it uses: host, device, dir, adapter, name, initiator; ``needs`` those
    that must be there. ``network``: its volumes are on no path of this machine, and so it has no ``<target>``.
    ``target``: the directory under which the path is made from the source's name. ``formats``, ``default``: of its
    source; ``volume_formats``, ``volume_default``: of its volumes (empty and None: not told apart).
    """

    __slots__ = ("default", "formats", "needs", "network", "source", "target", "volume_default", "volume_formats")

    def __init__(
        self,
        source: tuple[str, ...] = (),
        needs: tuple[str, ...] = (),
        formats: tuple[str, ...] = (),
        default: str | None = None,
        volume_formats: tuple[str, ...] = (),
        volume_default: str | None = None,
        network: bool = False,
        target: str | None = None,
    ) -> None:
        self.source = source
        self.needs = needs
        self.formats = formats
        self.default = default
        self.volume_formats = volume_formats
        self.volume_default = volume_default
        self.network = network
        self.target = target


#: formats that a volume which is a file can be asked to have
FILE_FORMATS = (
    "raw", "dir", "bochs", "cloop", "dmg", "iso", "vpc", "vdi", "fat", "vhd", "ploop", "cow", "qcow", "qcow2", "qed",
    "vmdk",
)  # fmt: skip
FILE_SYSTEMS = (
    "auto", "ext2", "ext3", "ext4", "ufs", "iso9660", "udf", "gfs", "gfs2", "vfat", "hfs+", "xfs", "ocfs2", "vmfs",
)  # fmt: skip
NETWORK_FILE_SYSTEMS = ("auto", "nfs", "glusterfs", "cifs")
DISK_LABELS = ("unknown", "dos", "dvh", "gpt", "mac", "bsd", "pc98", "sun", "lvm2")
PARTITION_TYPES = ("none", "linux", "fat16", "fat32", "linux-swap", "linux-lvm", "linux-raid", "extended")
VOLUME_GROUPS = ("unknown", "lvm2")

KINDS: dict[str, Kind] = {
    "dir": Kind(volume_formats=FILE_FORMATS, volume_default="raw"),
    "fs": Kind(("device",), ("device",), FILE_SYSTEMS, "auto", FILE_FORMATS, "raw"),
    "netfs": Kind(("host", "dir"), ("host", "dir"), NETWORK_FILE_SYSTEMS, "auto", FILE_FORMATS, "raw"),
    "logical": Kind(("device", "name"), ("name",), VOLUME_GROUPS, "lvm2", target="/dev/"),
    "disk": Kind(("device",), ("device",), DISK_LABELS, "unknown", PARTITION_TYPES, "none"),
    "iscsi": Kind(("host", "device", "initiator"), ("host",)),
    "iscsi-direct": Kind(("host", "device", "initiator"), ("host", "initiator"), network=True),
    "scsi": Kind(("adapter",), ("adapter",)),
    "mpath": Kind(),
    "rbd": Kind(("host", "name"), ("host", "name"), volume_formats=FILE_FORMATS, volume_default="raw", network=True),
    "sheepdog": Kind(("host", "name"), ("host", "name"), network=True),
    "gluster": Kind(("host", "dir", "name"), ("host", "name"), (), None, FILE_FORMATS, "raw", True),
    "zfs": Kind(("device", "name"), ("name",), target="/dev/zvol/"),
    "vstorage": Kind(("name",), ("name",), (), None, FILE_FORMATS, "raw"),
}
