"""Copy disks into a new image, or into an existing one: another format, other options, a snapshot, a chain flattened.

`convert` does what ``qemu-img convert`` does, in the same order, so that what is wrong is found at the same point.
"""

from __future__ import annotations

import os

from ..block.node import Node
from ..block.protocol.file import CACHE_MODES
from ..errors import CowshedError, OptionError, UnsupportedError, UsageError
from ..progress import QUIET
from .access import Opened
from .copy import Copier
from .plan import BLOCK, Part, Policy
from .snapshot_source import Choice, view

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from ..block.options import OptionValues
    from ..block.secret import Secrets
    from ..progress import Progress
    from .access import Access, Image


def convert(
    sources: Image | Sequence[Image],
    target: Image,
    fmt: str = "raw",
    options: Mapping[str, object] | str | None = None,
    *,
    source_fmt: str | None = None,
    source_cache: str = "writeback",
    snapshot: Choice | str | None = None,
    backing: str | None = None,
    backing_fmt: str | None = None,
    create: bool = True,
    target_is_zero: bool = False,
    cache: str = "unsafe",
    sparse_size: int = BLOCK,
    share: bool = True,
    compress: bool = False,
    offload: bool = False,
    threads: int = 8,
    in_order: bool = True,
    rate_limit: int = 0,
    salvage: bool = False,
    bitmaps: bool = False,
    skip_broken_bitmaps: bool = False,
    force_share: bool = False,
    trust: str | None = None,
    secrets: Secrets | None = None,
    labels: Sequence[str] | None = None,
    progress: Progress = QUIET,
    warn: Callable[[str], None] | None = None,
) -> None:
    """Copy the disks ``sources``, one behind the other, to the image ``target`` of format ``fmt``.

    ``options``: creation options as in create. ``snapshot``: read this snapshot (its id or name) instead of the disk.
    ``backing``/``backing_fmt``: the new image's backing file, which must show what the source's own backing file
    shows: only what the source's topmost layer holds is copied. ``create`` False: the target is there already, at
    least as large; it is not made anew, and ``target_is_zero`` says that all of it reads as zeroes. ``cache``,
    ``source_cache``: names in protocol.file.CACHE_MODES. ``sparse_size``: runs of so many zero bytes are not written
    (0: everything is). ``share``: blocks may be shared with the source where the file system can do that.
    ``compress``: in a format that has compressed clusters. ``offload``: let the kernel copy, without looking for
    zeroes. ``threads`` at most. ``in_order``: write front to back. ``rate_limit``: bytes a second. ``salvage``: what
    can't be read becomes zeroes, with a warning each. ``bitmaps``: copy persistent bitmaps; ``skip_broken_bitmaps``:
    except those in use elsewhere, instead of refusing. ``force_share``, ``trust``, ``secrets``, ``warn``: see
    graph.OpenFlags. ``labels``: how messages call the sources and, last, the target.

    Raises UsageError, OptionError, OpenError, UnsupportedError, HostError and NoSpaceError (``error while writing at
    byte …``). A target that was being made is then left as far as it has come.
    """
    if isinstance(sources, (str, os.PathLike, dict, Node)):
        sources = [sources]
    names: Sequence[Image] = sources  # type: ignore[assignment]
    choice = snapshot if isinstance(snapshot, Choice) else Choice(snapshot)
    from_access: Access = {"fmt": source_fmt, "cache": source_cache, "force_share": force_share}
    to_access: Access = {"fmt": fmt or None, "cache": cache}
    for access in (from_access, to_access):
        access["trust"], access["secrets"], access["warn"] = trust, secrets, warn
    opened: list[Opened] = []
    try:
        for index, image in enumerate(names):
            if labels is not None:
                from_access["label"] = labels[index]
            opened.append(Opened(image, from_access, exclusive=True))
        parts = _parts([item.node for item in opened], choice)
        values: OptionValues | None = None
        if create:
            values = _settle(target, fmt, options, parts, backing, backing_fmt, warn)
            backing = values.get("backing_file")
        _check_modes(parts, fmt, values, backing, compress, bitmaps, skip_broken_bitmaps)
        if values is not None:
            _create(target, fmt, values, to_access)
        if cache not in CACHE_MODES:
            raise UsageError(f"Invalid cache option: {cache}", field="cache", value=cache)
        if labels is not None:
            to_access["label"] = labels[len(names)]
        with Opened(target, to_access, writable=True) as node:
            total = parts[-1].start + parts[-1].length
            if bitmaps and not node.supports_bitmaps:
                raise UnsupportedError(f"Format driver '{node.driver}' does not support bitmaps", path=node.filename)
            if not create:
                _check_existing(node, total, target_is_zero and backing is not None, compress)
                # what a backing file shows is no promise: zeroes are cheap to write in an image that has one
                target_is_zero = target_is_zero and node.backing is None
            compress = compress or node.needs_compressed
            policy = Policy(
                sparse=sparse_size,
                reads_zero=target_is_zero or (create and fresh_reads_zero(node)),
                backed=backing is not None,
                backing_size=_backed(node, total),
                compress=compress,
                fine=values is not None and values.get("preallocation", "off") != "off",
                offload=offload,
                share=share and not compress and not offload and not salvage,
                salvage=salvage,
                ordered=in_order,
                threads=threads,
                rate=rate_limit,
            )
            Copier(parts, node, policy, progress=progress, warn=warn).run()
            if bitmaps:
                _copy_bitmaps(parts[0].node, node, skip_broken_bitmaps, warn)
            node.flush()
    finally:
        for item in opened:
            item.__exit__(None, None, None)


def _parts(nodes: Sequence[Node], choice: Choice) -> list[Part]:
    """The sources, or the snapshot of the one source, one behind the other."""
    parts = []
    start = 0
    for node in nodes:
        length = node.size
        if choice:
            if len(nodes) > 1:
                raise UsageError("No support for concatenating multiple snapshot")
            node = view(node, choice)
            # as large as the disk is now, but nothing of the snapshot may be lost
            length = max(length, node.size)
        parts.append(Part(node, start, length))
        start += length
    if not parts:
        raise UsageError("Must specify image file name")
    return parts


def _settle(
    target: Image,
    fmt: str,
    options: Mapping[str, object] | str | None,
    parts: Sequence[Part],
    backing: str | None,
    backing_fmt: str | None,
    warn: Callable[[str], None] | None,
) -> OptionValues:
    """The creation options of the new image, complete."""
    from ..block.creation import creation_table, put_backing

    if not isinstance(target, (str, os.PathLike)):
        raise UsageError("a new image needs a file name")
    values = creation_table(fmt, os.fspath(target)).parse(options, warn=warn)
    # the disk has the size of its sources, whatever the options say
    values.put("size", sum(part.length for part in parts))
    put_backing(values, fmt, backing, backing_fmt)
    if values.get("backing_file") is not None and values.get("backing_fmt") is None:
        raise OptionError("Use of backing file requires explicit backing format", field="backing_fmt")
    return values


def _check_modes(
    parts: Sequence[Part],
    fmt: str,
    values: OptionValues | None,
    backing: str | None,
    compress: bool,
    bitmaps: bool,
    skip_broken: bool,
) -> None:
    """What contradicts itself, before anything is written."""
    if backing is not None and len(parts) > 1:
        raise UsageError(
            "Having a backing file for the target makes no sense when concatenating multiple input images"
        )
    if bitmaps:
        if len(parts) > 1:
            raise UsageError("Copying bitmaps only possible with single source")
        _check_bitmaps(parts[0].node, skip_broken)
    if compress and values is not None:
        if not _can_compress(fmt):
            raise UnsupportedError("Compression not supported for this file format", layer=fmt)
        if values.get("encryption") or values.get("encrypt.format"):
            raise UsageError("Compression and encryption not supported at the same time")
        if values.get("preallocation", "off") != "off":
            raise UsageError("Compression and preallocation not supported at the same time")


def _can_compress(fmt: str) -> bool:
    from ..block import registry

    row = registry.find(fmt)
    return row is not None and row.compress


def _create(target: Image, fmt: str, values: OptionValues, access: Access) -> None:
    from ..block.graph import create_file

    name = os.fspath(target)  # type: ignore[arg-type]
    try:
        create_file(name, fmt, values, secrets=access.get("secrets"), warn=access.get("warn"))
    except CowshedError as error:
        error.message = f"{name}: error while converting {fmt}: {error.message}"
        error.args = (error.message,)
        raise


def _check_existing(node: Node, total: int, zero_and_backed: bool, compress: bool) -> None:
    """A target that was there before must be able to take the disk."""
    if zero_and_backed:
        raise UsageError("Cannot use --target-is-zero when the destination image has a backing file")
    if node.size < total:
        raise UsageError("output file is smaller than input file", path=node.filename, value=node.size, limit=total)
    if compress and not _can_compress(node.driver):
        raise UnsupportedError("Compression not supported for this file format", layer=node.driver)


def _backed(node: Node, total: int) -> int:
    """How much of the target its backing file shows."""
    return node.backing.size if node.backing is not None else total


def fresh_reads_zero(node: Node) -> bool:
    """Does an image that was just made read as zeroes wherever nothing is written?"""
    if not node.has_zero_init:
        return False
    file: Any = node.children.get("data-file") or node.children.get("file")
    if node.driver != "raw":
        return True
    while file is not None and (file.is_format or file.is_filter):
        file = file.children.get("file")
    return file is not None and file.driver == "file"


# -- bitmaps ---------------------------------------------------------------------------------------------------------


def _check_bitmaps(source: Node, skip_broken: bool) -> None:
    if not source.supports_bitmaps:
        raise UnsupportedError("Source lacks bitmap support", path=source.filename, layer=source.driver)
    for bitmap in reversed(source.bitmaps()):
        if "in-use" in bitmap.flags and not skip_broken:
            raise CowshedError(
                f"Cannot copy inconsistent bitmap '{bitmap.name}'",
                path=source.filename, field="bitmap", value=bitmap.name,
                hint="Try --skip-broken-bitmaps, or use 'qemu-img bitmap --remove' to delete it",
            )  # fmt: skip


def _copy_bitmaps(source: Node, target: Node, skip_broken: bool, warn: Callable[[str], None] | None) -> None:
    """Make the source's bitmaps in the target, with the same bits set, in the same order.

    What is wrong is told beginning with the last one, as the real tool does.
    """
    taken = {bitmap.name for bitmap in target.bitmaps()}
    whole = []
    for bitmap in reversed(source.bitmaps()):
        name = bitmap.name
        if "in-use" in bitmap.flags:
            if skip_broken and warn is not None:
                warn(f"Skipping inconsistent bitmap '{name}'")
            continue
        if name in taken:
            raise CowshedError(
                f"Failed to create bitmap {name}: Bitmap already exists: {name}",
                path=target.filename, field="bitmap", value=name, errno=17,
            )  # fmt: skip
        whole.append(bitmap)
    for bitmap in reversed(whole):
        name = bitmap.name
        doing = "create"
        try:
            target.bitmap_add(name, bitmap.granularity, enabled="auto" in bitmap.flags)
            doing = "populate"
            target.bitmap_merge(name, source, name)
        except CowshedError as error:
            error.message = f"Failed to {doing} bitmap {name}: {error.message}"
            error.args = (error.message,)
            raise
