"""Changing what an existing qcow2 image is: version, refcount width, lazy refcounts, size, names of other files."""

from __future__ import annotations

from array import array

from ....errors import CowshedError, OptionError, UnsupportedError
from ....progress import QUIET
from . import header as hd
from .l2 import COMPRESSED_FLAG, L1_OFFSET_MASK, OFFSET_MASK, ZERO_FLAG
from .rebuild import Rebuild
from .resize import check_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ....progress import Progress
    from .snapshot import Record
    from .write import Qcow2Node

_NEWER = "compatibility level 1.1 and above (use compat=1.1 or greater)"


def change_backing(image: Qcow2Node, name: str | None, fmt: str | None) -> None:
    """Rewrite the backing file's name and format in the header. Raises OptionError when they can't be stored."""
    if name and image.data_file_raw:
        raise OptionError("Invalid argument", path=image.filename, layer="qcow2", field="backing_file", value=name)
    if name and len(name.encode("utf-8", "surrogateescape")) > hd.MAX_BACKING_NAME:
        raise OptionError("Invalid argument", path=image.filename, layer="qcow2", field="backing_file", value=name)
    if fmt and len(fmt) > 15:
        raise OptionError("Invalid argument", path=image.filename, layer="qcow2", field="backing_fmt", value=fmt)
    header = image.header
    before = (header.backing_file, header.extensions)
    header.backing_file = name or None
    header.extensions = list(header.extensions)
    header.set_extension(hd.EXT_BACKING_FORMAT, fmt.encode("utf-8", "surrogateescape") if name and fmt else None)
    try:
        image.rewrite_header()
    except BaseException:
        header.backing_file, header.extensions = before
        raise


def amend(image: Qcow2Node, options: dict[str, Any], progress: Progress = QUIET) -> None:
    """Apply creation-like options (see AMEND in options.py) to an existing image.

    Every check comes before the first change: an option that this image can't have leaves all of it as it was. A host
    that fails in between may leave some options applied and others not, each of them whole.

    Raises OptionError, UnsupportedError, CowshedError.
    """
    header = image.header

    def refuse(text: str, field: str, hint: str | None = None) -> OptionError:
        return OptionError(text, path=image.filename, layer="qcow2", field=field, value=options.get(field), hint=hint)

    version = header.version
    bits = header.refcount_bits
    lazy = before = bool(header.compatible_features & hd.COMPAT_LAZY_REFCOUNTS)
    compat = options.get("compat")
    if compat is not None:
        if compat in ("0.10", "v2"):
            version = 2
        elif compat in ("1.1", "v3"):
            version = 3
        else:
            raise refuse(f"Unknown compatibility level {compat}", "compat")
    if any(name.startswith("encrypt.") for name in options):
        if not header.crypt_method:
            raise refuse("Can't amend encryption options - encryption not present", "encrypt.format")
        raise UnsupportedError("Encryption options cannot be amended yet", path=image.filename, layer="qcow2")
    if options.get("lazy_refcounts") is not None:
        lazy = bool(options["lazy_refcounts"])
    if options.get("refcount_bits") is not None:
        bits = options["refcount_bits"]
        if not bits or bits > 64 or bits & (bits - 1):
            raise refuse("Refcount width must be a power of two and may not exceed 64 bits", "refcount_bits")
    data_file = options.get("data_file")
    if data_file is not None and not image.has_data_file:
        raise refuse("data-file can only be set for images that use an external data file", "data_file")
    if options.get("data_file_raw") and not image.data_file_raw:
        raise refuse("data-file-raw cannot be set on existing images", "data_file_raw")
    if "backing_file" in options or "backing_fmt" in options:
        # nothing but both as they are, so that nobody takes one for the whole change
        if options.get("backing_file") != header.backing_file or options.get("backing_fmt") != header.backing_format:
            raise refuse("Cannot amend the backing file", "backing_file", "You can use 'qemu-img rebase' instead.")
    size = options.get("size") or image.size  # 0 is the field's word for no change
    rebuild: Rebuild | None = None
    if bits != header.refcount_bits:
        if version < 3 and bits != 16:
            raise refuse(f"Refcount widths other than 16 bits require {_newer_widths()}", "refcount_bits")
        progress.start(1)
        rebuild = _width_change(image, bits)
    if lazy and not before and version < 3:
        raise refuse(f"Lazy refcounts only supported with {_NEWER}", "lazy_refcounts")
    if data_file is not None:
        _check_header(image, data_file)
    if size >> 63:
        raise refuse("Image size cannot be negative", "size")
    if options.get("size"):
        check_size(image, size, version=max(version, header.version))
    if version < header.version:
        _check_downgrade(image, bits, size)
    # from here on the image changes
    if version > header.version:
        _upgrade(image)
    if rebuild is not None:
        rebuild.finish(lambda: None)
    if options.get("data_file_raw") is not None and not options["data_file_raw"]:
        header.autoclear_features &= ~hd.AUTOCLEAR_DATA_FILE_RAW
        image.data_file_raw = False
        image.write_header_fixed()
        image.file.flush()
    if data_file is not None:
        old = header.extensions
        header.extensions = list(old)
        header.set_extension(hd.EXT_DATA_FILE, data_file.encode("utf-8", "surrogateescape") or None)
        try:
            image.rewrite_header()
        except BaseException:
            header.extensions = old
            raise
    if lazy != before:
        header.compatible_features ^= hd.COMPAT_LAZY_REFCOUNTS
        image.write_header_fixed()
        image.file.flush()
    if options.get("size"):
        image.resize(size)
    if version < header.version:
        _downgrade(image)


def _check_header(image: Qcow2Node, data_file: str) -> None:
    """Does the header have room for another data file's name? Raises FormatError."""
    header = image.header
    before = header.extensions, header.backing_file_offset, header.header_length
    header.extensions = list(header.extensions)
    header.set_extension(hd.EXT_DATA_FILE, data_file.encode("utf-8", "surrogateescape") or None)
    try:
        header.encode()
    finally:
        header.extensions, header.backing_file_offset, header.header_length = before


def _newer_widths() -> str:
    return "compatibility level 1.1 or above (use compat=1.1 or greater)"


def _upgrade(image: Qcow2Node) -> None:
    header = image.header
    header.version = 3
    header.header_length = 112
    header.incompatible_features = header.compatible_features = header.autoclear_features = 0
    header.refcount_order = 4
    try:
        image.rewrite_header()
    except BaseException:
        header.version = 2
        header.header_length = 72
        raise


def _width_change(image: Qcow2Node, bits: int) -> Rebuild:
    """The change to refcounts of another width, ready to be finished. Raises CowshedError where a count is too big."""
    rebuild = Rebuild(image, bits=bits)
    for cluster, value in enumerate(rebuild.new) if bits < image.header.refcount_bits else ():
        if value > rebuild.maximum:
            raise CowshedError(
                f"Cannot decrease refcount entry width to {bits} bits: Cluster at offset "
                f"{cluster << image.cluster_bits:#x} has a refcount of {value}",
                path=image.filename, layer="qcow2", field="refcount_bits", value=bits, errno=22,
            )  # fmt: skip
    return rebuild


def _check_downgrade(image: Qcow2Node, bits: int, size: int) -> None:
    """Can the image become version 2, when its counts have ``bits`` and its disk ``size`` bytes by then?"""
    header = image.header
    if image.has_data_file:
        raise UnsupportedError("Cannot downgrade an image with a data file", path=image.filename, layer="qcow2")
    if bits != 16:
        raise UnsupportedError("compat=0.10 requires refcount_bits=16", path=image.filename, layer="qcow2")
    left = header.incompatible_features & ~hd.INCOMPAT_DIRTY
    if left:
        raise UnsupportedError(
            f"Cannot downgrade an image with incompatible features {left:#x} set", path=image.filename, layer="qcow2",
            field="incompatible_features", value=hex(left),
        )  # fmt: skip
    from .snapshot import load

    records = load(image)
    if any(record.disk_size != size or record.vm_state_size > 0xFFFFFFFF for record in records):
        raise UnsupportedError("Internal snapshots prevent downgrade of image", path=image.filename, layer="qcow2")


def _downgrade(image: Qcow2Node) -> None:
    """Version 3 to 2: zero entries become real zeroes or holes. It was checked that nothing else prevents it."""
    from .snapshot import load

    header = image.header
    records = load(image)
    for bitmap in image.bitmaps():
        image.bitmap_remove(bitmap.name)
    # in two steps: entries first (still true in version 3), then the version
    _expand_zero_entries(image, records)
    header.version = 2
    header.header_length = 72
    header.compatible_features = header.autoclear_features = header.incompatible_features = 0
    image.rewrite_header()


def _expand_zero_entries(image: Qcow2Node, records: list[Record]) -> None:
    """Rewrite every L2 table, snapshots' too, without the zero flag that version 2 doesn't have."""
    from .snapshot import _load, _put_snapshot_table, l1_of

    rebuild = Rebuild(image)
    header = image.header
    shift = image.cluster_bits
    trees = [image.l1[:], *(l1_of(image, record) for record in records)]
    needs_zeroes = [header.backing_file is not None] * len(trees)
    #: old L2 table's offset -> (new offset, clusters dropped, clusters added)
    moved: dict[int, tuple[int, list[int], list[int]]] = {}
    changed = [False] * len(trees)
    for number, tree in enumerate(trees):
        for index, entry in enumerate(tree):
            offset = entry & L1_OFFSET_MASK
            if not offset:
                continue
            if offset not in moved:
                moved[offset] = _expand_table(image, rebuild, offset, needs_zeroes[number])
            where, dropped, added = moved[offset]
            if where == offset:
                continue
            tree[index] = where
            changed[number] = True
            rebuild.add(offset >> shift, 1, -1)
            rebuild.add(where >> shift, 1, 1)
            for cluster in dropped:
                rebuild.add(cluster, 1, -1)
            for cluster in added:
                rebuild.add(cluster, 1, 1)
    if not any(changed):
        image.forget_tables()
        image.load_l1()
        return
    active = rebuild.fix_flags(trees[0])
    rebuild.free_area(header.l1_table_offset, header.l1_size * 8)
    active_offset = rebuild.put_table(active)
    for record, tree, new in zip(records, trees[1:], changed[1:], strict=True):
        if new:
            rebuild.free_area(record.l1_offset, record.l1_size * 8)
            record.l1_offset = rebuild.put_table(tree)
    table_offset = header.snapshots_offset
    if any(changed[1:]):
        rebuild.free_area(header.snapshots_offset, _load(image)[1])
        table_offset = _put_snapshot_table(rebuild, records)

    def switch() -> None:
        header.l1_table_offset = active_offset
        header.snapshots_offset = table_offset

    rebuild.finish(switch)


def _expand_table(
    image: Qcow2Node, rebuild: Rebuild, offset: int, needs_zeroes: bool
) -> tuple[int, list[int], list[int]]:
    """A copy of the L2 table at ``offset`` without zero flags: (its offset, clusters dropped, clusters added)."""
    table = image.read_table(offset, image.cluster_size // 8)
    dropped: list[int] = []
    added: list[int] = []
    touched = False
    for slot, entry in enumerate(table):
        if entry & COMPRESSED_FLAG or not entry & ZERO_FLAG:
            continue
        touched = True
        host = entry & OFFSET_MASK & ~(0xFF << 56)
        if host:
            dropped.append(host >> image.cluster_bits)
        if needs_zeroes:
            cluster = rebuild.allocate(1, 0)
            # keep it from being handed out again before its references are counted
            rebuild.add(cluster, 1, 1)
            image.file.write_zeroes(cluster << image.cluster_bits, image.cluster_size)
            added.append(cluster)
            table[slot] = cluster << image.cluster_bits
        else:
            table[slot] = 0
    if not touched:
        return offset, [], []
    where = rebuild.put_table(array("Q", table), 1)
    # the references are counted tree by tree
    rebuild.add(where >> image.cluster_bits, 1, -1)
    rebuild.hold(where >> image.cluster_bits)
    for cluster in added:
        rebuild.add(cluster, 1, -1)
        rebuild.hold(cluster)
    return where, dropped, added
