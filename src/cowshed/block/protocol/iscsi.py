"""The ``iscsi`` protocol: a logical unit of a remote SCSI target, in user space, without the kernel's initiator.

Names are ``iscsi://[USER[%PASSWORD]@]HOST[:PORT]/TARGET/LUN``. SBC: READ CAPACITY, READ(16), WRITE(16), SYNCHRONIZE
CACHE(16), WRITE SAME(16), UNMAP, GET LBA STATUS.
"""

from __future__ import annotations

import errno
import struct

from ...errors import CowshedError, HostError, OptionError, ReadOnlyError
from ...progress import QUIET
from ..node import DATA, ZERO, Extent, Node, byte_view
from ..options import Option, OptionTable
from .libiscsi import HEADER_DIGESTS, ILLEGAL_REQUEST, REFUSED, TIMEOUT, ScsiError, Session, split_portal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from ...progress import Progress
    from ..graph import OpenContext
    from ..node import Buffer

CREATE = OptionTable(
    "iscsi",
    (
        Option("size", "size", "Virtual disk size"),
        Option("preallocation", "str", "Preallocation mode (allowed values: off)", choices=("off",)),
    ),
)
INITIATOR = "iqn.2008-11.org.linux-kvm"
#: bytes that one command moves at most
_REQUEST = 1 << 20
_DISK, _CDROM, _NONE = 0, 5, 0x1F


class IscsiNode(Node):
    """The bytes of one unit. ``on_close``, which closes the session unless told otherwise, is called when the node
    closes. Reads and writes of any offset and length: blocks that are touched in part are read first."""

    driver = "iscsi"
    #: a unit keeps its size
    resizable = False

    def __init__(self, filename: str, session: Session, lun: int, *, writable: bool = False) -> None:
        super().__init__(filename, read_only=not writable)
        self.session = session
        self.lun = lun
        self.on_close: Callable[[], object] = session.close
        inquiry = session.inquiry(lun)
        kind = inquiry[0] & 0x1F if inquiry else 0x1F
        if kind == _NONE:
            session.command(lun, bytes(6))  # TEST UNIT READY: the target says why it has no such unit
        if kind not in (_DISK, _CDROM):
            raise HostError(
                f"The iSCSI unit {lun} is not a disk (device type {kind})", path=filename, layer="iscsi",
                field="lun", value=lun, errno=errno.EINVAL,
            )  # fmt: skip
        self.blocks, self.block, self.thin = session.capacity(lun)
        self.size = self.blocks * self.block
        self.cluster_size = 0
        if writable and (kind == _CDROM or self._protected()):
            raise ReadOnlyError("Cannot open a write protected LUN as read-write", path=filename, layer="iscsi")
        self._limits()

    def _protected(self) -> bool:
        try:
            sense = self.session.ask(self.lun, struct.pack(">BBBxBx", 0x1A, 8, 0x3F, 255), 255)
        except ScsiError:
            return False
        return len(sense) > 2 and bool(sense[2] & 0x80)

    def _limits(self) -> None:
        """VPD pages 0xb0 (block limits) and 0xb2 (logical block provisioning)."""
        limits = self.session.page(self.lun, 0xB0).ljust(64, b"\0")
        most, unmap, descriptors = (struct.unpack_from(">I", limits, at)[0] for at in (8, 20, 24))
        same = struct.unpack_from(">Q", limits, 36)[0]
        self.most = max(self.block, min(_REQUEST, most * self.block or _REQUEST) // self.block * self.block)
        self.most_same = same or 0xFFFF
        self.most_unmap = unmap if descriptors else 0
        provisioning = self.session.page(self.lun, 0xB2).ljust(8, b"\0")
        self.can_unmap = self.thin and bool(provisioning[5] & 0x80) and self.most_unmap > 0
        self.can_unmap_same = self.thin and bool(provisioning[5] & 0x40)
        self.can_same = True
        self.can_status = self.thin

    # -- mapping --------------------------------------------------------------------------------------------------

    def layer_extents(self, offset: int, length: int) -> Iterator[Extent]:
        end = offset + length
        while offset < end:
            stop, zero = self._status(offset, end)
            yield Extent(offset, stop - offset, ZERO if zero else DATA, self, offset, 0, self)
            offset = stop

    def _status(self, offset: int, end: int) -> tuple[int, bool]:
        """(where the run that ``offset`` is in ends, is it unmapped?): GET LBA STATUS on thin units."""
        if not self.can_status:
            return end, False
        first = offset // self.block
        try:
            answer = self.session.ask(self.lun, struct.pack(">BBQIBB", 0x9E, 0x12, first, 24, 0, 0), 24)
        except ScsiError as error:
            if error.key != ILLEGAL_REQUEST:
                raise
            self.can_status = False
            return end, False
        if len(answer) < 24:
            return end, False
        start, count, state = struct.unpack_from(">QIB", answer, 8)
        stop = (start + count) * self.block
        if start > first or stop <= offset:
            return end, False
        return min(end, stop), state & 0x0F in (1, 2)

    # -- I/O ------------------------------------------------------------------------------------------------------

    def read_into(self, offset: int, view: memoryview) -> None:
        view = byte_view(view)
        self._check_range(offset, len(view))
        block, at, done = self.block, offset, 0
        while done < len(view):
            skip = at % block
            want = min(self.most - skip, len(view) - done)
            if skip or (want % block and want < block):
                span = min(-(-(skip + want) // block) * block, self.most)
                want = min(want, span - skip)
                buffer = bytearray(span)
                self._read(at - skip, memoryview(buffer))
                view[done : done + want] = memoryview(buffer)[skip : skip + want]
            else:
                want -= want % block
                self._read(at, view[done : done + want])
            done += want
            at += want

    def _read(self, offset: int, view: memoryview) -> None:
        cdb = struct.pack(">BBQIBB", 0x88, 0, offset // self.block, len(view) // self.block, 0, 0)
        got = self.session.command(self.lun, cdb, into=view)
        if got != len(view):
            raise HostError("the iSCSI target sent too few bytes", path=self.filename, layer="iscsi", errno=errno.EIO)

    def write(self, offset: int, data: Buffer) -> None:
        view = byte_view(data)
        self._check_write(offset, len(view))
        block = self.block
        done = 0
        with self.lock:
            while done < len(view):
                at = offset + done
                skip = at % block
                want = min(self.most - skip, len(view) - done)
                if skip or want < block:
                    # the block that is changed in part, alone
                    want = min(block - skip, want)
                    buffer = bytearray(block)
                    self._read(at - skip, memoryview(buffer))
                    buffer[skip : skip + want] = view[done : done + want]
                    self._write(at - skip, memoryview(buffer))
                else:
                    want -= want % block
                    self._write(at, view[done : done + want])
                done += want

    def _write(self, offset: int, view: memoryview) -> None:
        cdb = struct.pack(">BBQIBB", 0x8A, 0, offset // self.block, len(view) // self.block, 0, 0)
        self.session.command(self.lun, cdb, data=view)

    def write_zeroes(self, offset: int, length: int, unmap: bool = False) -> None:
        self._check_write(offset, length)
        with self.lock:
            head = min(-offset % self.block, length)
            if head:
                self.write(offset, bytes(head))
            end = offset + length
            at = offset + head
            stop = max(at, end - end % self.block)
            while at < stop:
                step = min(stop - at, self.most_same * self.block if self.can_same else self.most)
                if not self.can_same or not self._write_same(at, step, unmap):
                    step = min(step, self.most)
                    self.write(at, bytes(step))
                at += step
            if at < end:
                self.write(at, bytes(end - at))

    def _write_same(self, offset: int, length: int, unmap: bool) -> bool:
        flags = 8 if unmap and self.can_unmap_same else 0
        cdb = struct.pack(">BBQIBB", 0x93, flags, offset // self.block, length // self.block, 0, 0)
        try:
            self.session.command(self.lun, cdb, data=memoryview(bytes(self.block)))
        except ScsiError as error:
            if error.key != ILLEGAL_REQUEST:
                raise
            self.can_same = False
            return False
        return True

    def discard(self, offset: int, length: int) -> None:
        self._check_write(offset, length)
        first, stop = -(-offset // self.block), (offset + length) // self.block
        while first < stop and self.can_unmap:
            count = min(stop - first, self.most_unmap)
            body = struct.pack(">HH4xQI4x", 22, 16, first, count)
            try:
                self.session.command(self.lun, struct.pack(">BxxxxxBHx", 0x42, 0, len(body)), data=memoryview(body))
            except ScsiError as error:
                if error.key != ILLEGAL_REQUEST:
                    raise
                self.can_unmap = False
            first += count

    def flush(self) -> None:
        if self.read_only:
            return
        try:
            self.session.command(self.lun, struct.pack(">BBQIBB", 0x91, 0, 0, 0, 0, 0))
        except ScsiError as error:
            if error.key != ILLEGAL_REQUEST:  # nothing is cached where the command is not known
                raise

    def resize(self, size: int, preallocation: str = "off", progress: Progress = QUIET) -> None:
        """A unit keeps the size that its target gives it; a format that has room enough is content."""
        if preallocation != "off":
            raise CowshedError(
                f"Unsupported preallocation mode '{preallocation}'", path=self.filename, errno=errno.ENOTSUP
            )
        if size > self.size:
            raise CowshedError(
                "Cannot grow iSCSI devices", path=self.filename, value=size, limit=self.size, errno=errno.EINVAL
            )

    def allocated_bytes(self) -> int | None:
        return None

    def shutdown(self) -> None:
        try:
            self.flush()
        finally:
            self.on_close()


# -- opening -----------------------------------------------------------------------------------------------------------


def parse_url(name: str) -> dict[str, str]:
    """The options that an address ``//[user[%password]@]host[:port]/target/lun`` stands for. Raises OptionError."""

    def bad() -> OptionError:
        return OptionError(
            f"Failed to parse URL : {name if name.startswith('iscsi:') else f'iscsi:{name}'}",
            field="filename",
            value=name,
            hint="iscsi://[USER[%PASSWORD]@]HOST[:PORT]/TARGET/LUN",
        )

    rest = name.removeprefix("iscsi:")
    if not rest.startswith("//"):
        raise bad()
    authority, slash, path = rest[2:].partition("/")
    target, _, lun = path.partition("/")
    if not slash or not target or not (lun.isascii() and lun.isdigit() and len(lun) <= 5):
        raise bad()
    options = {"target": target, "lun": lun}
    login, at, portal = authority.rpartition("@")
    if at:
        user, percent, password = login.partition("%")
        options["user"] = user
        if percent:
            options["password"] = password
    try:
        split_portal(portal)
    except ValueError:
        raise bad() from None
    options["portal"] = portal
    return options


def open_iscsi(filename: str | None, options: dict[str, Any], context: OpenContext) -> Node:
    """Log in and open a unit, by address or by options. Raises OptionError, UnsupportedError, HostError."""
    given = {key: value for key, value in options.items() if value is not None}
    if filename:
        for key, value in parse_url(filename).items():
            given.setdefault(key, value)
    for key in ("portal", "target"):
        if not given.get(key):
            raise OptionError(f"Parameter '{key}' is missing", field=key)
    if not filename and not given.get("transport"):
        raise OptionError("Parameter 'transport' is missing", field="transport")
    transport = str(given.get("transport", "tcp"))
    if transport != "tcp":
        known = transport == "iser"
        raise OptionError(
            "iSCSI over RDMA (iser) is not supported by this version of cowshed"
            if known
            else f"Unknown transport: {transport}",
            field="transport",
            value=transport,
        )
    digest = str(given.get("header-digest", "none-crc32c")).lower()
    if digest not in HEADER_DIGESTS:
        raise OptionError("Invalid header-digest setting : " + digest, field="header-digest", value=digest)
    user = given.get("user")
    password = given.get("password")
    secret = given.get("password-secret")
    if secret is not None and password is not None:
        raise OptionError("'password' and 'password-secret' properties are mutually exclusive", field="password-secret")
    word = context.secret(str(secret)) if secret is not None else None if password is None else str(password).encode()
    if user is not None and word is None:
        raise OptionError("CHAP username specified but no password was given", field="password")
    lun = int(given.get("lun", 0))
    if not 0 <= lun < 1 << 16:
        raise OptionError("Invalid LUN", field="lun", value=lun)
    portal, target = str(given["portal"]), str(given["target"])
    try:
        session = Session(
            portal,
            str(given.get("initiator-name", INITIATOR)),
            target,
            user=None if user is None else str(user),
            password=word,
            timeout=int(given.get("timeout", TIMEOUT)),
            header_digest=digest,
        )
    except HostError as error:
        raise _no_unit(error) from error
    name = f"iscsi://{portal}/{target}/{lun}"
    if filename:
        name = filename if filename.startswith("iscsi:") else f"iscsi:{filename}"
    return _unit(name, session, lun, context.writable)


def _unit(name: str, session: Session, lun: int, writable: bool) -> IscsiNode:
    try:
        return IscsiNode(name, session, lun, writable=writable)
    except ScsiError as error:
        session.close()
        raise _no_unit(error) from error
    except BaseException:
        session.close()
        raise


def _no_unit(error: HostError) -> HostError:
    text = str(error).removeprefix("Failed to login: ").removeprefix(REFUSED)
    return HostError(f"iSCSI: Failed to connect to LUN : {text}", path=error.path, layer="iscsi", errno=error.errno)


def create_on_unit(
    path: str,
    size: int,
    values: dict[str, Any],
    preallocation: str,
    perm: int,
    shared: int,
    progress: Progress = QUIET,
) -> IscsiNode:
    """Prepare an existing unit for a new image: it must be large enough, and its first sector is cleared.

    Raises OptionError, UnsupportedError, HostError.
    """
    if preallocation != "off":
        message = f"Unsupported preallocation mode '{preallocation}'"
        raise OptionError(message, field="preallocation", value=preallocation)
    given = parse_url(path)
    password = given.get("password")
    session = Session(
        given["portal"],
        INITIATOR,
        given["target"],
        user=given.get("user"),
        password=None if password is None else password.encode(),
    )
    name = path if path.startswith("iscsi:") else f"iscsi:{path}"
    node = _unit(name, session, int(given["lun"]), True)
    try:
        node.resize(size)
        if node.size:
            node.write_zeroes(0, min(512, node.size))
    except BaseException:
        node.close()
        raise
    return node
