"""What the reference says of each command and option, beside what the tables know: used by generate.py.

The tables in the package have names, kinds, defaults and choices, and the short texts that qemu-img prints, which are
interface. Here are the sentences for readers. generate.py fails for an option without one and for one without an
option.
"""

from __future__ import annotations

#: command -> (what it does, exit statuses)
COMMANDS: dict[str, tuple[str, str]] = {
    "amend": (
        "Changes what can be changed about an image without copying it: version, refcount width, lazy refcounts, size.",
        "",
    ),
    "bench": ("Sends requests to an image, one after the other or many at a time, and prints how long they took.", ""),
    "bitmap": (
        "Works on persistent dirty bitmaps, which record what was written since they were added or cleared: what an "
        "incremental backup copies. Several actions may be given; they are done in the order given.",
        "",
    ),
    "check": (
        "Looks whether an image's metadata is sound, and repairs it with `-r`.",
        "0 sound, 1 the check could not be done, 2 corrupt, 3 nothing worse than leaked clusters, 63 the format has no "
        "check",
    ),
    "commit": (
        "Writes what an overlay holds into its backing file, or into an image further down with `-b`, and empties the "
        "overlay.",
        "",
    ),
    "compare": (
        "Looks whether two images show the same disk, whatever their formats.",
        "0 the same, 1 different, 2 an image could not be opened, 3 the allocation could not be told, 4 a read failed; "
        "more than 1 for every error",
    ),
    "convert": (
        "Copies a disk into a new image: of another format, with other options, compressed, without its backing files, "
        "or of a snapshot. Several sources are put one behind the other.",
        "",
    ),
    "create": (
        "Makes an empty image, or an overlay on a backing file, which then gives the size if none is given.",
        "",
    ),
    "dd": ("Copies blocks of a disk into a new image.", ""),
    "info": ("Prints what an image says of itself. Neither its backing file nor its data file is opened.", ""),
    "map": ("Prints where the disk's bytes are: in which file of the chain, and at which offset.", ""),
    "measure": (
        "Tells beforehand how large a new image will be, for a size or for an image that is to be converted.",
        "",
    ),
    "snapshot": (
        "Keeps, shows, restores and forgets states of a disk inside its image. Without an action nothing is done.",
        "",
    ),
    "rebase": (
        "Puts another backing file below an image, or none. What the old one showed and the new one does not is copied "
        "into the image first.",
        "",
    ),
    "resize": ("Gives a disk another size. `+` or `-` before the size means a change of the present one.", ""),
}

#: command ("" for all) -> option's attribute -> what it does
OPTIONS: dict[str, dict[str, str]] = {
    "": {
        "": "print the help of all commands",
        "fmt": "the image's format; recognised by its first bytes when left out",
        "options": "the format's options, `NAME=VALUE,…`; a comma in a value is doubled; `help` lists them; may be "
        "given several times",
        "cache": "cache mode of what is written: `none`, `writeback`, `writethrough`, `directsync`, `unsafe`",
        "src_cache": "cache mode of what is only read; the words of `-t`",
        "progress": "print how far the work is",
        "quiet": "print errors only",
        "objects": "define an object, for images a `secret`; may be given several times",
        "image_opts": "image names are lists of their driver's options: `driver=qcow2,file.filename=disk.img`",
        "force_share": "read although another program writes; what is read may not belong together",
        "output": "`human` or `json`",
        "rate_limit": "bytes a second at most",
        "out_fmt": "the format of the new image (raw)",
        "backing_fmt": "the backing file's format",
        "snapshot": "read a snapshot: `ID_OR_NAME`, or `snapshot.id=ID,snapshot.name=NAME`",
    },
    "amend": {"force": "allow what may leave the image unreadable"},
    "bench": {
        "count": "requests (75000)",
        "depth": "requests under way at a time (64)",
        "native_aio": "the kernel's asynchronous I/O; for raw files opened with `-t none`",
        "aio": "`threads`, `native` or `io_uring`",
        "offset": "where the first request begins (0)",
        "buffer_size": "bytes a request (4096)",
        "step": "bytes from one request to the next (the size of a request)",
        "cache": "cache mode, also `off` for `none`",
        "write": "write instead of reading: **destroys the disk's content**",
        "flush_interval": "flush after so many requests; needs `-w`",
        "pattern": "the byte that is written (0)",
        "drain": "a flush does not wait for the requests under way",
    },
    "bitmap": {
        "add": "make the bitmap, empty and recording",
        "remove": "delete it",
        "clear": "forget what it has recorded",
        "enable": "let it record writes",
        "disable": "stop recording",
        "merge": "add what the bitmap SOURCE has recorded",
        "granularity": "bytes of disk for each bit of a new bitmap, a power of two (64k)",
        "source_file": "the image that SOURCE is in",
        "source_fmt": "the format of that image",
    },
    "check": {"repair": "`leaks`: free what nothing uses; `all`: repair everything that can be"},
    "commit": {
        "base": "commit into this image of the chain instead of the nearest; the overlay is not emptied then",
        "drop": "do not empty the overlay: it will be deleted",
    },
    "compare": {"second_fmt": "the second image's format", "strict": "sizes and allocation must agree too"},
    "convert": {
        "backing_file": "copy only what differs from this backing file, and put the new image on it",
        "copy_offload": "let the kernel copy, where it can; nothing is searched for zeroes",
        "compress": "write compressed clusters",
        "sparse_size": "so many zero bytes make a hole, a multiple of 512 (4k); 0: none do, all is written",
        "no_create": "the target exists and is filled",
        "coroutines": "requests under way at a time, 1 to 16 (8)",
        "in_order": "write blocks as they come, not front to back: faster on devices that take several at a time",
        "target_image_opts": "the target is named by a list of options; needs `-n`",
        "salvage": "go on where the source can't be read; zeroes stand there in the copy",
        "target_is_zero": "the existing target reads as zeroes, so zeroes need not be written; needs `-n`",
        "bitmaps": "copy the persistent bitmaps too",
        "skip_broken_bitmaps": "leave out bitmaps that were not saved cleanly, instead of refusing",
    },
    "create": {
        "backing_file": "make an overlay on this file; the name is kept as given, seen from the image's directory",
        "unsafe": "do not look at the backing file",
    },
    "info": {"backing_chain": "go on with the backing file, and its backing file, to the end"},
    "map": {"start_offset": "where to begin (0)", "max_length": "how many bytes to look at (to the end)"},
    "measure": {"size": "for an empty disk of N bytes"},
    "snapshot": {
        "list": "print the snapshots",
        "apply": "make the disk what it was; its present state is lost",
        "create": "keep the present state under this name",
        "delete": "forget the snapshot of this name",
    },
    "rebase": {
        "backing_file": "the new backing file, its name seen from the image's directory; empty: none",
        "unsafe": "change the name and copy nothing",
        "cache": "cache mode of the image",
        "src_cache": "cache mode of the backing files",
    },
    "resize": {
        "preallocation": "how the space that is added is taken: `off`, `metadata`, `falloc`, `full`",
        "shrink": "yes, what lies behind the new end may go",
    },
}

#: driver -> its one line
DRIVERS: dict[str, str] = {
    "raw": "the disk's bytes and nothing else, sparse where the file system is",
    "qcow2": "versions 2 and 3, whole: extended L2, compression, backing files, data files, snapshots, bitmaps; "
    "encrypted images are not read yet",
    "vmdk": "one sparse extent with its descriptor in the file: monolithicSparse and streamOptimized",
    "luks": "versions 1 and 2, with a key; read and written in place, not created yet",
    "file": "a file of the host",
    "host_device": "a block device: size, discard and zeroing by the kernel",
    "host_cdrom": "a CD or DVD drive, read-only",
    "host_floppy": "a floppy drive",
    "iscsi": "a unit of an iSCSI target, in user space through libiscsi (Debian package libiscsi7): "
    "`iscsi://[USER[%PASSWORD]@]HOST[:PORT]/TARGET/LUN`",
}

#: format that can't be created, so that nothing can be tried -> write, check, snapshots, bitmaps, resize
ABILITIES: dict[str, list[str]] = {"luks": ["yes", "", "", "", "yes"]}

_DEVICE = {"size": "no more than the device has; its first sector is cleared", "preallocation": "nothing is reserved"}

#: driver -> creation or amendment option -> what it does
CREATION: dict[str, dict[str, str]] = {
    "raw": {"size": "size of the disk"},
    "file": {
        "size": "size of the disk",
        "nocow": "ask btrfs not to copy this file on write",
        "preallocation": "`falloc`: reserve the space; `full`: write zeroes to all of it; `off`: a sparse file",
        "extent_size_hint": "ask XFS to allocate in pieces of this size (1 MiB); 0: leave it as it is",
    },
    "host_device": _DEVICE,
    "host_cdrom": _DEVICE,
    "host_floppy": _DEVICE,
    "iscsi": _DEVICE,
    "qcow2": {
        "size": "size of the disk",
        "compat": "version: 2 (`0.10`, `v2`) or 3 (`1.1`, `v3`; the default)",
        "backing_file": "the image that shows where this one has nothing of its own",
        "backing_fmt": "its format",
        "cluster_size": "what is allocated at a time: a power of two from 512 to 2M, with `extended_l2` from 16k",
        "extended_l2": "32 subclusters in each cluster: large clusters that still copy little on a small write",
        "preallocation": "`metadata`: tables are complete from the start; `falloc`: space is reserved too; `full`: and "
        "written",
        "compression_type": "how `convert -c` packs clusters",
        "data_file": "keep the disk's bytes in this file, and only metadata in the image",
        "data_file_raw": "the data file by itself stays a valid raw image of the disk",
        "lazy_refcounts": "write refcounts later, and rebuild them after a crash",
        "refcount_bits": "width of a refcount: a power of two from 1 to 64; 16 in version 2",
        "encryption": "old spelling of `encrypt.format=aes`",
        "encrypt.format": "encryption of the content",
        "encrypt.key-secret": "id of the secret with the key or passphrase",
        "encrypt.cipher-alg": "cipher",
        "encrypt.cipher-mode": "mode of the cipher",
        "encrypt.hash-alg": "hash of the key derivation",
        "encrypt.iter-time": "milliseconds to spend on the key derivation",
        "encrypt.ivgen-alg": "how initialisation vectors are made",
        "encrypt.ivgen-hash-alg": "hash used in making them",
        "encrypt.keyslot": "the key slot to change",
        "encrypt.new-secret": "id of a secret to put into a key slot",
        "encrypt.old-secret": "the key slots that this secret opens",
        "encrypt.state": "`active` or `inactive`",
    },
    "vmdk": {
        "size": "size of the disk",
        "adapter_type": "what kind of adapter the descriptor names",
        "backing_file": "a vmdk image that shows where this one has nothing of its own",
        "backing_fmt": "`vmdk` or nothing",
        "compat6": "hardware version 6",
        "hwversion": "hardware version in the descriptor",
        "toolsversion": "guest tools version in the descriptor",
        "subformat": "how the disk is laid out; monolithicSparse and streamOptimized can be made",
        "zeroed_grain": "mark zeroed grains in the tables instead of writing them",
    },
}

#: driver -> option when opening -> what it does; a name may stand for all that begin with it
OPENING: dict[str, dict[str, str]] = {
    "raw": {"offset": "the disk begins at this byte of the file", "size": "and is so long"},
    "qcow2": {
        "lazy-refcounts": "accepted; the image's own setting counts",
        "pass-discard-": "accepted without effect",
        "overlap-check": "accepted; writes are checked against the image's metadata whatever it says",
        "cache-size": "accepted; tables are cached within a bound of their own",
        "l2-cache-": "as `cache-size`",
        "refcount-cache-size": "as `cache-size`",
        "cache-clean-interval": "as `cache-size`",
        "encrypt.": "key of an encrypted image; accepted, such images are refused",
    },
    "luks": {"key-secret": "id of the secret with the passphrase"},
    "file": {
        "filename": "the path",
        "locking": "`auto`, `on` or `off`: see [locking](../locking.md)",
        "aio": "`threads`, `native` or `io_uring`; accepted, threads do the work",
        "aio-max-batch": "accepted without effect",
        "pr-manager": "refused: there are no such objects here",
        "drop-cache": "accepted without effect",
        "x-check-cache-dropped": "accepted without effect",
    },
    "iscsi": {
        "filename": "the address, in place of the options below",
        "transport": "`tcp`",
        "portal": "`HOST[:PORT]`, port 3260 where none is given",
        "target": "the target's name (IQN)",
        "user": "name for CHAP",
        "password": "its password; better `password-secret`",
        "password-secret": "id of the secret that holds the password",
        "lun": "number of the unit, 0 where none is given",
        "initiator-name": "the name that we log in by",
        "header-digest": "`none`, `none-crc32c` (the default), `crc32c-none` or `crc32c`",
        "timeout": "seconds for one command, 30 where none are given; 0: wait for ever",
    },
}

#: what cowshed.pool offers, in the order of the reference
POOL_ORDER = (
    "Host", "Pool", "PoolInfo", "Volume", "VolumeInfo", "Job", "Event", "Secrets", "Secret",
    "PoolDef", "PoolSource", "VolumeDef", "SecretDef",
)  # fmt: skip

#: class -> what of it is for the package's own use
POOL_HIDDEN: dict[str, tuple[str, ...]] = {
    "Host": ("log", "index_folder", "backend", "check_access", "check_change", "note", "emit", "settle"),
    "Pool": ("backend", "live", "bring_up", "claim"),
    "Job": ("describe",),
}

#: kind of extent -> what it means
KINDS: dict[str, str] = {
    "DATA": "bytes at `host_offset` of `node`",
    "ZERO": "a layer says that zeroes are here",
    "HOLE": "no layer has anything here; reads as zeroes",
    "COMPRESSED": "packed: read through the node",
    "ENCRYPTED": "encrypted: read through the node",
}

#: groups of guestfish's commands: the module that they stand in -> the heading
GUESTFISH = {
    "disk": "Disks and sessions",
    "read": "Reading files",
    "write": "Writing files",
    "local": "The shell itself",
    "facts": "Facts about files",
    "text": "Text",
    "copy": "Copies between host and guest",
    "archive": "Archives",
    "partition": "Partitions",
    "volume": "LUKS and logical volumes",
    "group": "Volume groups and physical volumes",
    "logical": "Changing logical volumes",
    "filesystem": "File systems",
    "device": "Bytes of devices",
    "inspection": "What system it is",
    "settings": "Settings",
    "ext": "ext2, ext3 and ext4",
    "rights": "Access lists and capabilities",
    "initrd": "Initial RAM disks",
    "journal": "The systemd journal",
    "hive": "Windows registry hives",
    "erase": "Erasing",
    "forensic": "Deleted files",
    "iso": "ISO images",
    "swap": "Swap areas",
    "handle": "The handle itself",
}
