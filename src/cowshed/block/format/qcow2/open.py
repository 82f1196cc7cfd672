"""Opening a qcow2 image: header, tables, data file, backing file."""

from __future__ import annotations

from errno import EIO

from ....errors import CowshedError, FormatError, HostError, OptionError, UnsupportedError
from . import header as hd
from .node import Qcow2Map

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ...node import Node


def open_qcow2(file: Node, options: dict[str, Any], context: Any) -> Node:
    """The image in ``file`` as a Node. Raises what ``read_header`` raises, and OpenError for its other files."""
    flags = context.flags
    header = hd.read_header(file, check=flags.check)
    writable = flags.writable
    if header.incompatible_features & hd.INCOMPAT_CORRUPT and writable and not flags.check:
        raise HostError(
            "qcow2: Image is corrupt; cannot be opened read/write", path=file.filename, layer="qcow2 header",
            field="incompatible_features", offset=72, value="corrupt bit set", errno=13,
            hint="qemu-img check -r all can repair it; keep a copy of the file first",
        )  # fmt: skip
    image: Qcow2Map
    if writable:
        from .write import Qcow2Node

        image = Qcow2Node(file, header, read_only=False)
    else:
        image = Qcow2Map(file, header, read_only=True)
    image.warn = flags.warn
    if header.crypt_method:
        _refuse_encrypted(header, file.filename, options, flags.no_io)
    name = header.data_file if image.has_data_file else None
    data_file = context.open_data_file(name, image)
    if data_file is not None:
        image.children["data-file"] = data_file
    elif image.has_data_file and not flags.no_io:
        raise OptionError(
            "'data-file' is required for this image",
            path=file.filename, layer="qcow2 header", field="data file name",
            hint="give the file's name with the option data-file.filename",
        )  # fmt: skip
    if header.autoclear_features & hd.AUTOCLEAR_DATA_FILE_RAW and not image.has_data_file and not flags.no_io:
        raise FormatError(
            "data-file-raw requires a data file",
            path=file.filename, layer="qcow2 header", field="autoclear_features", offset=88,
            value=hex(header.autoclear_features),
        )  # fmt: skip
    image.load_l1()
    if not flags.check:
        image.snapshots()  # an unreadable table must be noticed before anything is changed beside it
    if header.extension(hd.EXT_BITMAPS) is not None:
        from .bitmap import open_bitmaps

        open_bitmaps(image, writable=writable)
    context.open_backing(header.backing_file, header.backing_format, image)
    if writable and not flags.check:
        _make_ready(image)
    return image


def _refuse_encrypted(header: hd.Header, path: str, options: dict[str, Any], no_io: bool) -> None:
    """Without its key an encrypted image has no data, only facts."""
    if header.crypt_method == 2 and header.extension(hd.EXT_CRYPTO) is None:
        raise FormatError(
            "Missing CRYPTO header for crypt method 2", path=path, layer="qcow2 header", field="crypt_method"
        )
    if no_io:
        return
    if not options.get("encrypt.key-secret"):
        raise OptionError(
            "Parameter 'encrypt.key-secret' is required for cipher",
            path=path,
            layer="qcow2",
            field="encrypt.key-secret",
        )
    raise UnsupportedError(
        "Encrypted images cannot be read yet", path=path, layer="qcow2 header", field="crypt_method", offset=32,
        value=header.crypt_method,
    )  # fmt: skip


def _make_ready(image: Any) -> None:
    """What opening for writing does to an image: repair after an unclean stop, forget what others would not keep."""
    header = image.header
    if header.incompatible_features & hd.INCOMPAT_DIRTY:
        from .check import check_image

        result = check_image(image, frozenset({"leaks", "errors"}))
        if result.error is not None or result.check_errors:
            number = EIO if result.error is None else result.error.errno
            raise CowshedError("Could not repair dirty image", path=image.filename, errno=number) from result.error
    unknown = header.autoclear_features & ~hd.AUTOCLEAR_KNOWN
    if unknown and header.version >= 3:
        header.autoclear_features &= hd.AUTOCLEAR_KNOWN
        image.write_header_fixed()
        image.file.flush()
