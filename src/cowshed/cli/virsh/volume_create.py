"""Volumes from documents, from options and from other volumes."""

from __future__ import annotations

from ...errors import ArgumentError, CowshedError, StateError, TooLargeError
from .documents import Markup, read_document
from .parse import Call, Failed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...pool.pool import Pool
    from ...pool.volume import Volume
    from .session import Session

_LARGEST = (1 << 64) - 1


def read_size(text: str) -> int:
    """A size with its suffix, in bytes: k, KiB 1024, kB 1000, … to E. Raises Failed."""
    body = text.lstrip(" \t\n\v\f\r")
    digits = body[1:] if body[:1] == "+" else body
    end = 0
    while end < len(digits) and digits[end] in "0123456789":
        end += 1
    if not end or len(digits[:end].lstrip("0")) > 20 or int(digits[:end]) > _LARGEST:
        raise Failed(f"Malformed size {text}")
    value, suffix = int(digits[:end]), digits[end:]
    lower = suffix.lower()
    scale = 1
    if lower not in ("", "b", "byte", "bytes"):
        power = "kmgtpe".find(lower[0]) + 1
        if not power or lower[1:] not in ("", "ib", "b"):
            raise Failed(f"Malformed size {text}", ArgumentError(f"unknown suffix '{suffix}'", value=text))
        scale = (1000 if lower[1:] == "b" else 1024) ** power
    if value > _LARGEST // scale:
        raise Failed(f"Malformed size {text}", TooLargeError(f"value too large: {value}{suffix}", value=text))
    return value * scale


def vol_create(session: Session, call: Call) -> None:
    pool = session.pool(call)
    path = call.need("file")
    text = read_document(call)
    try:
        _validate(call, text)
        with session.working(path) as progress:
            volume = pool.create_volume(text, prealloc_metadata=call.flag("prealloc-metadata"), progress=progress)
    except CowshedError as error:
        raise Failed(f"Failed to create vol from {path}", error) from error
    session.extra(f"Vol {volume.name} created from {path}\n")


def vol_create_from(session: Session, call: Call) -> None:
    pool = session.pool(call)
    path = call.need("file")
    origin = session.volume(call, "vol", "inputpool")
    text = read_document(call)
    try:
        _validate(call, text)
        volume = _clone(session, call, pool, text, origin, path)
    except CowshedError as error:
        raise Failed(f"Failed to create vol from {path}", error) from error
    session.extra(f"Vol {volume.name} created from input vol {origin.name}\n")


def _validate(call: Call, text: str) -> None:
    """Where --validate asks for it. Raises CowshedError."""
    if call.flag("validate"):
        from ...wire.libvirt.schema import validate

        validate(text, "storagevol")


def _clone(session: Session, call: Call, pool: Pool, text: str, origin: Volume, name: str) -> Volume:
    """Raises CowshedError. ``name`` is what a person at a terminal sees."""
    metadata, reflink = call.flag("prealloc-metadata"), call.flag("reflink")
    with session.working(name) as progress:
        return pool.clone_volume(text, origin, prealloc_metadata=metadata, reflink=reflink, progress=progress)


def vol_create_as(session: Session, call: Call) -> None:
    pool = session.pool(call)
    name = call.need("name")
    capacity = read_size(call.need("capacity"))
    given = "".join(call.words("allocation"))
    allocation = read_size(given) if given else None
    kind, backing, backing_kind = call.text("format"), call.text("backing-vol"), call.text("backing-vol-format")
    xml = Markup().open("volume")
    xml.leaf("name", name)
    xml.leaf("capacity", str(capacity))
    if allocation is not None:
        xml.leaf("allocation", str(allocation))
    if kind is not None:
        xml.open("target")
        xml.empty("format", type=kind)
        xml.close()
    if backing is not None:
        try:
            try:
                base = pool.volume(backing)
            except CowshedError:
                base = session.any_volume(backing)
        except CowshedError as error:
            raise Failed(f"failed to get vol '{backing}'", error) from error
        xml.open("backingStore")
        xml.leaf("path", base.path)
        if backing_kind is not None:
            xml.empty("format", type=backing_kind)
        xml.close()
    xml.close()
    if call.flag("print-xml"):
        session.write(str(xml))
        return
    try:
        with session.working(name) as progress:
            pool.create_volume(str(xml), prealloc_metadata=call.flag("prealloc-metadata"), progress=progress)
    except CowshedError as error:
        raise Failed(f"Failed to create vol {name}", error) from error
    session.extra(f"Vol {name} created\n")


def vol_clone(session: Session, call: Call) -> None:
    from ...wire.libvirt.volume import format_volume

    origin = session.volume(call)
    name = call.need("newname")
    definition = origin.definition
    definition.name = name
    if any(char < " " and char not in "\t\n\r" for char in name):
        # the document would be without them, and the volume another's namesake
        raise Failed(
            f"Failed to clone vol from {origin.name}", StateError("volume name cannot contain control characters")
        )
    text = format_volume(definition, libxml2=True)
    if call.flag("print-xml"):
        session.write(text.rstrip("\n"))
        return
    try:
        volume = _clone(session, call, origin.pool, text, origin, name)
    except CowshedError as error:
        raise Failed(f"Failed to clone vol from {origin.name}", error) from error
    session.extra(f"Vol {volume.name} cloned from {origin.name}\n")
