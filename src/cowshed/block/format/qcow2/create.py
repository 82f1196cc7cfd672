"""Making qcow2 images: the smallest consistent one is written first, preallocation then goes through the driver."""

from __future__ import annotations

import errno
import os
import struct

from ....errors import CowshedError, FormatError, LockError, OptionError, UnsupportedError, strerror
from ...filename import local_path
from ...registry import find
from . import header as hd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ....progress import Progress
    from ...node import Node

PREALLOCATIONS = ("off", "metadata", "falloc", "full")
_NEWER = "compatibility level 1.1 and above (use version=v3 or greater)"


class Layout:
    """The checked creation options of a qcow2 image (sizes in bytes)."""

    __slots__ = (
        "backing_file",
        "backing_fmt",
        "cluster_bits",
        "compression",
        "data_file",
        "data_file_raw",
        "extended",
        "lazy",
        "preallocation",
        "refcount_order",
        "size",
        "version",
    )

    def __init__(self, values: dict[str, Any], size: int) -> None:
        """Check ``values`` (qcow2 creation options by name). Raises OptionError or UnsupportedError."""

        def refuse(text: str, field: str) -> OptionError:
            return OptionError(text, layer="qcow2", field=field, value=values.get(field))

        compat = values.get("compat")
        if compat not in (None, "0.10", "v2", "1.1", "v3"):
            raise refuse(f"Parameter 'version' does not accept value '{compat}'", "compat")
        compression = values.get("compression_type")
        compression = "zlib" if compression is None else compression
        if compression not in hd.COMPRESSION_TYPES:
            raise refuse(f"Parameter 'compression-type' does not accept value '{compression}'", "compression_type")
        self.preallocation: str = values.get("preallocation", "off")
        if self.preallocation not in PREALLOCATIONS:
            raise refuse(f"Parameter 'preallocation' does not accept value '{self.preallocation}'", "preallocation")
        _check_encryption(values)
        self.version = 2 if compat in ("0.10", "v2") else 3
        if size >> 63:
            raise refuse("Could not resize image: Image size cannot be negative", "size")
        # the tools round odd sizes up to whole sectors
        self.size = (size + 511) // 512 * 512
        self.extended = bool(values.get("extended_l2"))
        cluster_size = values.get("cluster_size") or (65536 if values.get("cluster_size") is None else 0)
        if cluster_size < 512 or cluster_size > 2 << 20 or cluster_size & (cluster_size - 1):
            raise refuse("Cluster size must be a power of two between 512 and 2048k", "cluster_size")
        self.cluster_bits = cluster_size.bit_length() - 1
        if self.extended:
            if self.version < 3:
                raise refuse(f"Extended L2 entries are only supported with {_NEWER}", "extended_l2")
            if self.cluster_bits < 14:
                raise refuse(
                    "Extended L2 entries are only supported with cluster sizes of at least 16384 bytes", "cluster_size"
                )
        self.backing_file: str | None = values.get("backing_file")
        self.backing_fmt: str | None = values.get("backing_fmt")
        if self.backing_fmt is not None and find(self.backing_fmt) is None:
            raise refuse(f"Parameter 'backing-fmt' does not accept value '{self.backing_fmt}'", "backing_fmt")
        if self.preallocation != "off" and self.backing_file is not None and not self.extended:
            raise refuse(
                "Backing file and preallocation can only be used at the same time if extended_l2 is on", "preallocation"
            )
        if self.backing_fmt is not None and self.backing_file is None:
            raise refuse("Backing format cannot be used without backing file", "backing_fmt")
        self.lazy = bool(values.get("lazy_refcounts"))
        if self.lazy and self.version < 3:
            raise refuse(f"Lazy refcounts only supported with {_NEWER}", "lazy_refcounts")
        bits = values.get("refcount_bits")
        bits = 16 if bits is None else bits
        if bits > 64 or bits & (bits - 1) or not bits:
            raise refuse("Refcount width must be a power of two and may not exceed 64 bits", "refcount_bits")
        if bits != 16 and self.version < 3:
            raise refuse(
                "Different refcount widths than 16 bits require compatibility level 1.1 or above "
                "(use version=v3 or greater)",
                "refcount_bits",
            )
        self.refcount_order = bits.bit_length() - 1
        self.data_file: str | None = values.get("data_file") or None
        self.data_file_raw = bool(values.get("data_file_raw"))
        if self.data_file_raw and self.preallocation == "off":
            # the raw file alone must show the disk, and what others write into it must show through the image
            self.preallocation = "metadata"
        if self.data_file_raw and self.data_file is None:
            raise refuse("data-file-raw requires data-file", "data_file_raw")
        if self.data_file_raw and self.backing_file is not None:
            raise refuse("Backing file and data-file-raw cannot be used at the same time", "data_file_raw")
        if self.data_file is not None and self.version < 3:
            raise refuse(f"External data files are only supported with {_NEWER}", "data_file")
        self.compression = hd.COMPRESSION_TYPES.index(compression)
        if self.compression and self.version < 3:
            raise refuse(f"Non-zlib compression type is only supported with {_NEWER}", "compression_type")
        if hd.l1_entries_for(self.size, self.cluster_bits, self.extended) * 8 > hd.MAX_L1_BYTES:
            raise OptionError(
                "The image size is too large for file format 'qcow2' (try using a larger cluster size)",
                layer="qcow2", field="size", value=size, errno=27,
            )  # fmt: skip

    def header(self) -> hd.Header:
        """A header with these features and no tables yet."""
        h = hd.Header()
        h.version = self.version
        h.cluster_bits = self.cluster_bits
        h.size = self.size
        h.refcount_order = self.refcount_order
        if self.version < 3:
            h.header_length = 72
        if self.extended:
            h.incompatible_features |= hd.INCOMPAT_EXTENDED_L2
        if self.compression:
            h.incompatible_features |= hd.INCOMPAT_COMPRESSION
            h.compression_type = self.compression
        if self.lazy:
            h.compatible_features |= hd.COMPAT_LAZY_REFCOUNTS
        if self.data_file is not None:
            h.incompatible_features |= hd.INCOMPAT_DATA_FILE
            h.set_extension(hd.EXT_DATA_FILE, self.data_file.encode("utf-8", "surrogateescape"))
            if self.data_file_raw:
                h.autoclear_features |= hd.AUTOCLEAR_DATA_FILE_RAW
        if self.backing_file:
            if len(self.backing_file.encode("utf-8", "surrogateescape")) > hd.MAX_BACKING_NAME:
                raise self._backing_refused(errno.EINVAL)
            h.backing_file = self.backing_file
            if self.backing_fmt:
                h.set_extension(hd.EXT_BACKING_FORMAT, self.backing_fmt.encode("utf-8", "surrogateescape"))
            try:
                h.encode()
            except FormatError as error:
                raise self._backing_refused(errno.ENOSPC) from error
        return h

    def _backing_refused(self, number: int) -> OptionError:
        name = self.backing_file or ""
        return OptionError(
            f"Could not assign backing file '{name}' with format '{self.backing_fmt}': {strerror(number)}",
            layer="qcow2", field="backing_file", value=name, errno=number,
        )  # fmt: skip


def _check_encryption(values: dict[str, Any]) -> None:
    """The rules for encrypt.*; an image that would be encrypted is refused until the cipher layer is there."""
    given = [name for name in values if name.startswith("encrypt.")]
    method = values.get("encrypt.format")
    if values.get("encryption") and method is None:
        method = "aes"
    if method is None:
        if given:
            raise OptionError("Parameter 'encrypt.format' is missing", layer="qcow2", field="encrypt.format")
        return
    if method not in ("aes", "luks"):
        raise OptionError(f"Parameter 'format' does not accept value '{method}'", layer="qcow2", field="encrypt.format")
    if values.get("encrypt.key-secret") is None:
        raise OptionError(
            "Parameter 'encrypt.key-secret' is required for cipher", layer="qcow2", field="encrypt.key-secret"
        )
    raise UnsupportedError("Encrypted qcow2 images cannot be created yet", layer="qcow2", field="encrypt.format")


def create(filename: str, values: dict[str, Any], context: Any) -> None:
    """Make a qcow2 image in ``filename`` from creation options. Raises CowshedError; a file it made is gone then."""
    layout = Layout(values, values.get("size") or 0)
    if layout.data_file is not None and _one_file(filename, layout.data_file):
        # the locks would say so, but only when the one has been emptied for the other
        raise LockError(
            'Failed to get shared "resize" lock',
            path=filename, hint=f"Is another process using the image [{layout.data_file}]?",
        )  # fmt: skip
    file: Node = context.create_file(filename)
    data_file: Node | None = None
    try:
        if layout.data_file is not None:
            data_file = context.create_data_file(layout.data_file, filename)
        header = write_empty(file, layout)
        if layout.preallocation != "off":
            _preallocate(file, header, layout, data_file, context.progress)
        else:
            if data_file is not None:
                if data_file.size < layout.size:
                    data_file.resize(layout.size)
                data_file.flush()
            file.flush()
        if data_file is not None:
            data_file.close()
        file.close()
    except Exception:
        if data_file is not None:
            data_file.close()
        file.close()
        context.discard_file(filename)
        raise


def _one_file(name: str, other: str) -> bool:
    """Are these names of one file, which need not be there yet?"""
    name, other = local_path(name), local_path(other)
    try:
        return os.path.samefile(name, other)
    except (OSError, ValueError):
        return os.path.realpath(name) == os.path.realpath(other)


def write_empty(file: Node, layout: Layout) -> hd.Header:
    """Write an image without any data into ``file`` (not flushed); its header. Driver and tables' cache are not needed
    for it, and most images are made so: nothing of theirs is loaded."""
    h = layout.header()
    cluster_size = 1 << layout.cluster_bits
    l1_size = hd.l1_entries_for(layout.size, layout.cluster_bits, layout.extended)
    l1_clusters = max(1, (l1_size * 8 + cluster_size - 1) >> layout.cluster_bits)
    per_block = cluster_size * 8 >> layout.refcount_order
    per_table_cluster = cluster_size // 8
    # header, refcount table, refcount blocks, L1 table: blocks and table must cover all of them
    blocks = table_clusters = 1
    while True:
        total = 1 + table_clusters + blocks + l1_clusters
        more_blocks = (total + per_block - 1) // per_block
        more_table = (more_blocks + per_table_cluster - 1) // per_table_cluster
        if more_blocks <= blocks and more_table <= table_clusters:
            break
        blocks, table_clusters = max(blocks, more_blocks), max(table_clusters, more_table)
    h.refcount_table_offset = cluster_size
    h.refcount_table_clusters = table_clusters
    first_block = 1 + table_clusters
    h.l1_table_offset = (first_block + blocks) << layout.cluster_bits
    h.l1_size = l1_size
    places = range(first_block << layout.cluster_bits, h.l1_table_offset, cluster_size)
    # header, table and blocks are written as whole clusters: space that is sure to be used is taken now
    _put(file, 0, bytes(cluster_size), "Could not write qcow2 header")
    _put(file, cluster_size, bytes((table_clusters + blocks) << layout.cluster_bits), "Could not write refcount table")
    file.write(cluster_size, struct.pack(f">{blocks}Q", *places))
    for number, place in enumerate(places):
        used = max(0, min(per_block, total - number * per_block))
        file.write(place, _ones(used, layout.refcount_order).ljust(cluster_size, b"\0"))
    # the file reaches to the end of the L1 table's last entry
    _put(file, h.l1_table_offset, bytes(l1_size * 8), "Could not resize image: Failed to grow the L1 table")
    file.write(0, h.encode().ljust(cluster_size, b"\0"))
    return h


def _ones(count: int, order: int) -> bytes:
    """``count`` reference counts of one, each of 2^``order`` bits, as a refcount block has them (see encode_block)."""
    if order >= 3:
        return (1).to_bytes(1 << order - 3, "big") * count
    bits, per = 1 << order, 8 >> order
    whole, rest = divmod(count, per)
    full = sum(1 << bits * index for index in range(per))
    return bytes([full]) * whole + (bytes([full & (1 << bits * rest) - 1]) if rest else b"")


def _put(file: Node, offset: int, data: bytes, failed: str) -> None:
    try:
        file.write(offset, data)
    except CowshedError as error:
        raise type(error)(f"{failed}: {error}", path=error.path, offset=error.offset, errno=error.errno) from error


def _preallocate(file: Node, h: hd.Header, layout: Layout, data_file: Node | None, progress: Progress) -> None:
    """Apply the preallocation of an image that has no data yet, through the driver, and close it."""
    from array import array

    from .preallocate import preallocate
    from .write import Qcow2Node

    image = Qcow2Node(file, h, read_only=False)
    if data_file is not None:
        image.children["data-file"] = data_file
    image.l1 = array("Q", bytes(h.l1_size * 8))
    try:
        preallocate(image, 0, layout.size, layout.preallocation, progress)
    except BaseException as error:
        image.read_only = True  # nothing of it is worth writing any more
        if isinstance(error, CowshedError):
            raise type(error)(f"Could not resize image: {error}", errno=error.errno) from error
        raise
    finally:
        image.close()
