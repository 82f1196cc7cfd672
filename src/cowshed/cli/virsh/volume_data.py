"""What is in a volume: upload, download, wipe; and its size."""

from __future__ import annotations

import errno
import os
import stat

from ...errors import CowshedError
from .parse import Call, Failed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .session import Session


def vol_upload(session: Session, call: Call) -> None:
    offset = call.number("offset") or 0
    length = call.number("length", wrap=True) or 0
    volume = session.volume(call)
    name, path = call.need("vol"), call.need("file")
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise Failed(f"cannot read {path}") from error
    if stat.S_ISDIR(os.fstat(fd).st_mode):
        from .connection import Complaint

        os.close(fd)
        trouble = Complaint(f"send handler failed: {os.strerror(errno.EISDIR)}")
        raise Failed(f"cannot send data to volume {name}", trouble)
    with open(fd, "rb", buffering=0) as file, session.working(name) as progress:
        try:
            volume.upload(
                file,
                offset=offset,
                length=length,
                sparse=call.flag("sparse"),
                resize=call.flag("resize"),
                progress=progress,
            )
        except CowshedError as error:
            doing = "send data to" if progress.done or error.errno == errno.ENOSPC else "upload to"
            raise Failed(f"cannot {doing} volume {name}", error) from error


def vol_download(session: Session, call: Call) -> None:
    offset = call.number("offset") or 0
    length = call.number("length", wrap=True) or 0
    volume = session.volume(call)
    name, path = call.need("vol"), call.need("file")
    session.host.check_access("virStorageVolDownload")
    from ...pool.transfer import empty

    created = True
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    except FileExistsError:
        created = False
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        except OSError as error:
            raise Failed(f"cannot create {path}") from error
    except OSError as error:
        raise Failed(f"cannot create {path}") from error
    try:
        with open(fd, "wb", buffering=0) as file, session.working(name) as progress:
            try:
                if not created:
                    empty(fd, path, *volume.places)
                volume.download(file, offset=offset, length=length, sparse=call.flag("sparse"), progress=progress)
            except CowshedError as error:
                doing = "receive data" if progress.done else "download"
                raise Failed(f"cannot {doing} from volume {name}", error) from error
    except BaseException:
        if created:
            os.unlink(path)
        raise


def vol_wipe(session: Session, call: Call) -> None:
    volume = session.volume(call)
    name = call.need("vol")
    algorithm = call.text("algorithm")
    if algorithm is not None:
        from ...pool.wipe import ALGORITHMS

        if algorithm != "trim" and algorithm not in ALGORITHMS:
            raise Failed(f"Unsupported algorithm '{algorithm}'")
    try:
        with session.working(name) as progress:
            volume.wipe(algorithm or "zero", progress=progress)
    except CowshedError as error:
        raise Failed(f"Failed to wipe vol {name}", error) from error
    session.extra(f"Vol {name} wiped\n")


def vol_resize(session: Session, call: Call) -> None:
    from .volume_create import read_size

    volume = session.volume(call)
    text = call.need("capacity")
    shrink, delta = call.flag("shrink"), call.flag("delta")
    if text.startswith("-"):
        # libvirt takes no negative numbers; the flag says the direction
        if not shrink:
            raise Failed("negative size requires --shrink")
        text = text[1:]
    capacity = read_size(text)
    by = "by" if delta else "to"
    try:
        volume.resize(capacity, allocate=call.flag("allocate"), delta=delta, shrink=shrink)
    except CowshedError as error:
        raise Failed(f"Failed to change size of volume '{volume.name}' {by} {text}", error) from error
    session.extra(f"Size of volume '{volume.name}' successfully changed {by} {text}\n")
