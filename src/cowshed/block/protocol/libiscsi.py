"""iSCSI in user space: the C library libiscsi by ctypes, as little of it as carries SCSI commands.

Sessions and logins are the library's; commands (SBC, SPC) are made and read here. Nothing is loaded before a session
is asked for. The library is Debian's ``libiscsi7`` (or its successors).
"""

from __future__ import annotations

import ctypes
import errno
import socket
import struct
import time
from _thread import RLock

from ...errors import HostError, UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PACKAGE = "libiscsi7"
#: of the releases that have the calls below
_NAMES = ("libiscsi.so.7", "libiscsi.so.8", "libiscsi.so.9", "libiscsi.so.10", "libiscsi.so.11", "libiscsi.so")
PORT = 3260
#: seconds that one command may take where nobody says otherwise
TIMEOUT = 30

_DISCOVERY, _NORMAL = 1, 2
_NONE, _READ, _WRITE = 0, 1, 2
HEADER_DIGESTS = {"none": 0, "none-crc32c": 1, "crc32c-none": 2, "crc32c": 3}

# SAM: status of a command, and the library's own beyond a byte
GOOD, CHECK_CONDITION, BUSY, CONFLICT, TASK_SET_FULL = 0, 2, 8, 0x18, 0x28
_CANCELLED, _TIMED_OUT = 0x0F000000, 0x0F000002
# SPC: sense keys
NOT_READY, ILLEGAL_REQUEST, UNIT_ATTENTION, DATA_PROTECT = 2, 5, 6, 7
_RETRIES = 20
#: what begins the message of a command that a target answered with sense data
REFUSED = "the iSCSI target refused a command: "
#: LUNs that a target's report may name, and targets that a discovery may
_MAX_LUNS = 1 << 14
_MAX_TARGETS = 1 << 14


class _Sense(ctypes.Structure):
    _fields_ = (("error_type", ctypes.c_ubyte), ("key", ctypes.c_int), ("ascq", ctypes.c_int))


class _Task(ctypes.Structure):
    """The beginning of struct scsi_task, which all releases share."""

    _fields_ = (
        ("status", ctypes.c_int),
        ("cdb_size", ctypes.c_int),
        ("xfer_dir", ctypes.c_int),
        ("expxferlen", ctypes.c_int),
        ("cdb", ctypes.c_ubyte * 16),
        ("residual_status", ctypes.c_int),
        ("residual", ctypes.c_size_t),
        ("sense", _Sense),
    )


class _Data(ctypes.Structure):
    _fields_ = (("size", ctypes.c_size_t), ("data", ctypes.c_void_p))


class _Portal(ctypes.Structure):
    pass


_Portal._fields_ = (("next", ctypes.POINTER(_Portal)), ("portal", ctypes.c_char_p))


class _Address(ctypes.Structure):
    pass


_Address._fields_ = (
    ("next", ctypes.POINTER(_Address)),
    ("target_name", ctypes.c_char_p),
    ("portals", ctypes.POINTER(_Portal)),
)

_library: Any = None


def library() -> Any:
    """The loaded library. Raises UnsupportedError, which names it and its Debian package."""
    global _library
    if _library is not None:
        return _library
    for name in _NAMES:
        try:
            found = ctypes.CDLL(name)
        except OSError:
            continue
        break
    else:
        raise UnsupportedError(
            f"iSCSI needs the library libiscsi (Debian package {PACKAGE})", layer="iscsi", hint=f"install {PACKAGE}"
        )
    pointer, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
    for call, result, arguments in (
        ("iscsi_create_context", pointer, (text,)),
        ("iscsi_destroy_context", number, (pointer,)),
        ("iscsi_set_targetname", number, (pointer, text)),
        ("iscsi_set_session_type", number, (pointer, number)),
        ("iscsi_set_header_digest", number, (pointer, number)),
        ("iscsi_set_initiator_username_pwd", number, (pointer, text, text)),
        ("iscsi_set_timeout", number, (pointer, number)),
        ("iscsi_set_noautoreconnect", None, (pointer, number)),
        ("iscsi_connect_sync", number, (pointer, text)),
        ("iscsi_login_sync", number, (pointer,)),
        ("iscsi_logout_sync", number, (pointer,)),
        ("iscsi_disconnect", number, (pointer,)),
        ("iscsi_get_error", text, (pointer,)),
        ("iscsi_discovery_sync", ctypes.POINTER(_Address), (pointer,)),
        ("iscsi_free_discovery_data", None, (pointer, ctypes.POINTER(_Address))),
        ("scsi_create_task", ctypes.POINTER(_Task), (number, text, number, number)),
        ("scsi_task_add_data_in_buffer", number, (ctypes.POINTER(_Task), number, pointer)),
        (
            "iscsi_scsi_command_sync",
            ctypes.POINTER(_Task),
            (pointer, number, ctypes.POINTER(_Task), ctypes.POINTER(_Data)),
        ),
        ("scsi_free_scsi_task", None, (ctypes.POINTER(_Task),)),
    ):
        try:
            function = getattr(found, call)
        except AttributeError:
            raise UnsupportedError(
                f"this libiscsi is too old: it has no {call} (Debian package {PACKAGE})", layer="iscsi"
            ) from None
        function.restype = result
        function.argtypes = arguments
    _library = found
    return found


class ScsiError(HostError):
    """A command failed: ``status`` as the target gave it, ``key`` and ``ascq`` of its sense data (0 without any)."""

    def __init__(self, message: str, status: int, key: int = 0, ascq: int = 0, errno: int = errno.EIO) -> None:
        super().__init__(message, layer="iscsi", errno=errno)
        self.status = status
        self.key = key
        self.ascq = ascq


class Session:
    """One connection to a portal ("host:port"), logged in: to ``target``, or for discovery without one.

    ``initiator``: our own name (IQN); ``user``, ``password``: CHAP; ``timeout``: seconds for one command, and to
    connect, 0 for none; ``header_digest``: a word of HEADER_DIGESTS. Commands run one at a time. Raises
    UnsupportedError without the library, HostError in the library's words when connecting or logging in fails.
    """

    def __init__(
        self,
        portal: str,
        initiator: str,
        target: str | None = None,
        *,
        user: str | None = None,
        password: bytes | None = None,
        timeout: int = TIMEOUT,
        header_digest: str = "none-crc32c",
    ) -> None:
        self.library = library()
        self.portal = portal
        self.target = target
        self.lock = RLock()
        self.context: int | None = None
        self.logged_in = False
        _reach(portal, timeout)
        self.context = self.library.iscsi_create_context(initiator.encode())
        if not self.context:
            raise HostError("Failed to create an iSCSI context", layer="iscsi", errno=errno.ENOMEM)
        try:
            lib = self.library
            lib.iscsi_set_noautoreconnect(self.context, 1)
            lib.iscsi_set_timeout(self.context, timeout)
            if target is not None and lib.iscsi_set_targetname(self.context, target.encode()):
                raise self._error("Failed to set target name")
            lib.iscsi_set_session_type(self.context, _DISCOVERY if target is None else _NORMAL)
            lib.iscsi_set_header_digest(self.context, HEADER_DIGESTS[header_digest])
            if user is not None and lib.iscsi_set_initiator_username_pwd(self.context, user.encode(), password or b""):
                raise self._error("Failed to set credential")
            if lib.iscsi_connect_sync(self.context, portal.encode()):
                raise self._error(f"Failed to connect to {portal}")
            if lib.iscsi_login_sync(self.context):
                raise self._error("Failed to login")
            self.logged_in = True
        except BaseException:
            self.close()
            raise

    def _error(self, doing: str) -> HostError:
        said = self.library.iscsi_get_error(self.context) or b""
        text = said.decode("utf-8", "replace").strip()
        return HostError(f"{doing}: {text}" if text else doing, path=self.portal, layer="iscsi", errno=errno.EIO)

    def close(self) -> None:
        with self.lock:
            context, self.context = self.context, None
            if context is None:
                return
            if self.logged_in:
                self.library.iscsi_logout_sync(context)
            self.library.iscsi_disconnect(context)
            self.library.iscsi_destroy_context(context)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # -- commands -------------------------------------------------------------------------------------------------

    def command(self, lun: int, cdb: bytes, *, into: memoryview | None = None, data: memoryview | None = None) -> int:
        """Run one SCSI command; ``into`` takes what it gives, ``data`` is what it gets. Returns how many bytes came.

        A unit attention (a reset, a changed medium) and a busy target are met by asking again. Raises ScsiError.
        """
        attempt = 0
        while True:
            try:
                return self._command(lun, cdb, into, data)
            except ScsiError as error:
                attempt += 1
                if attempt > _RETRIES:
                    raise
                if error.status in (BUSY, TASK_SET_FULL):
                    time.sleep(min(0.01 * attempt, 0.2))
                elif error.status != CHECK_CONDITION or error.key != UNIT_ATTENTION:
                    raise

    def _command(self, lun: int, cdb: bytes, into: memoryview | None, data: memoryview | None) -> int:
        lib = self.library
        length = len(into) if into is not None else len(data) if data is not None else 0
        direction = _NONE if not length else _READ if into is not None else _WRITE
        with self.lock:
            if self.context is None:
                raise ScsiError("the iSCSI session is closed", _CANCELLED)
            task = lib.scsi_create_task(len(cdb), cdb, direction, length)
            if not task:
                raise MemoryError
            buffer: Any = None
            out: _Data | None = None
            try:
                if into is not None and length:
                    buffer = (ctypes.c_ubyte * length).from_buffer(into)
                    lib.scsi_task_add_data_in_buffer(task, length, ctypes.addressof(buffer))
                elif direction == _WRITE and data is not None:
                    buffer = (
                        ctypes.c_char_p(bytes(data)) if data.readonly else (ctypes.c_ubyte * length).from_buffer(data)
                    )
                    out = _Data(length, ctypes.cast(buffer, ctypes.c_void_p).value)
                answer = lib.iscsi_scsi_command_sync(self.context, lun, task, ctypes.byref(out) if out else None)
                if not answer:
                    raise ScsiError(str(self._error("the iSCSI connection failed")), _CANCELLED)
                facts = task.contents
                if facts.status == GOOD:
                    left = facts.residual if facts.residual_status == 1 else 0
                    return length - min(length, left)
                raise self._failure(facts)
            finally:
                lib.scsi_free_scsi_task(task)

    def _failure(self, facts: Any) -> ScsiError:
        status = facts.status
        said = (self.library.iscsi_get_error(self.context) or b"").decode("utf-8", "replace").strip()
        if status == _TIMED_OUT:
            return ScsiError("the iSCSI target did not answer in time", status, errno=errno.ETIMEDOUT)
        if status == CHECK_CONDITION:
            number = {ILLEGAL_REQUEST: errno.EINVAL, DATA_PROTECT: errno.EACCES, NOT_READY: errno.EBUSY}.get(
                facts.sense.key, errno.EIO
            )
            if facts.sense.ascq == 0x2707:
                number = errno.ENOSPC
            text = said or f"sense key {facts.sense.key}, code {facts.sense.ascq:#06x}"
            return ScsiError(REFUSED + text, status, facts.sense.key, facts.sense.ascq, number)
        if status == CONFLICT:
            return ScsiError("the iSCSI unit is reserved by another initiator", status, errno=errno.EBUSY)
        return ScsiError(f"the iSCSI command failed: {said or hex(status)}", status)

    # -- facts ----------------------------------------------------------------------------------------------------

    def ask(self, lun: int, cdb: bytes, length: int) -> bytes:
        """The up to ``length`` bytes that a command answers."""
        buffer = bytearray(length)
        got = self.command(lun, cdb, into=memoryview(buffer))
        return bytes(buffer[:got])

    def luns(self) -> list[int]:
        """The target's logical units, in order."""
        size = 16
        while True:
            answer = self.ask(0, struct.pack(">BxB3xIxx", 0xA0, 0, size), size)
            if len(answer) < 8:
                raise HostError("Failed to unmarshal reportluns: the answer is too short", layer="iscsi")
            length = struct.unpack_from(">I", answer)[0]
            if length > _MAX_LUNS * 8:
                raise HostError("Failed to unmarshal reportluns: too many units", layer="iscsi", value=length // 8)
            if 8 + length <= len(answer):
                break
            if 8 + length <= size:
                raise HostError("Failed to unmarshal reportluns: the answer is too short", layer="iscsi")
            size = 8 + length
        found = []
        for at in range(8, 8 + length // 8 * 8, 8):
            first = struct.unpack_from(">H", answer, at)[0]
            # SAM: peripheral (00b) and flat (01b) addressing; a LUN below 256 looks the same in both
            found.append(first & 0x3FFF if first >> 14 < 2 else first)
        return found

    def inquiry(self, lun: int) -> bytes:
        """Standard inquiry data: byte 0 holds the device type."""
        return self.ask(lun, struct.pack(">BBBHB", 0x12, 0, 0, 255, 0), 255)

    def page(self, lun: int, code: int) -> bytes:
        """A page of vital product data; empty when the unit has none such."""
        try:
            answer = self.ask(lun, struct.pack(">BBBHB", 0x12, 1, code, 255, 0), 255)
        except ScsiError as error:
            if error.key == ILLEGAL_REQUEST:
                return b""
            raise
        return answer if len(answer) > 3 and answer[1] == code else b""

    def capacity(self, lun: int) -> tuple[int, int, bool]:
        """(blocks, bytes of a block, thin provisioned?) of a disk."""
        try:
            answer = self.ask(lun, struct.pack(">BBQIBB", 0x9E, 0x10, 0, 32, 0, 0), 32)
            if len(answer) < 12:
                raise HostError("Failed to get capacity of lun: the answer is too short", layer="iscsi")
            last, size = struct.unpack_from(">QI", answer)
            thin = len(answer) > 14 and bool(answer[14] & 0x80)
        except ScsiError as error:
            if error.key != ILLEGAL_REQUEST:
                raise
            answer = self.ask(lun, struct.pack(">BxIxxxx", 0x25, 0), 8)
            if len(answer) < 8:
                raise HostError("Failed to get capacity of lun: the answer is too short", layer="iscsi") from None
            last, size = struct.unpack_from(">II", answer)
            thin = False
        if size < 512 or size & (size - 1) or size > 1 << 16 or (last + 1) * size >= 1 << 63:
            raise HostError("the unit's block size or capacity makes no sense", layer="iscsi", value=(last, size))
        return last + 1, size, thin

    def targets(self) -> list[tuple[str, list[str]]]:
        """(name, portals) of every target that a discovery session is told of."""
        with self.lock:
            first = self.library.iscsi_discovery_sync(self.context)
            if not first:
                said = self.library.iscsi_get_error(self.context) or b""
                if said:
                    raise self._error("Failed to discover session")
                return []
            found: list[tuple[str, list[str]]] = []
            try:
                at = first
                while at and len(found) < _MAX_TARGETS:
                    portals: list[str] = []
                    portal = at.contents.portals
                    while portal and len(portals) < _MAX_TARGETS:
                        portals.append((portal.contents.portal or b"").decode("utf-8", "replace"))
                        portal = portal.contents.next
                    found.append(((at.contents.target_name or b"").decode("utf-8", "replace"), portals))
                    at = at.contents.next
            finally:
                self.library.iscsi_free_discovery_data(self.context, first)
        return found


def split_portal(portal: str) -> tuple[str, int]:
    """ "host", "host:port" or "[address]:port" -> (host, port). Raises ValueError."""
    if portal.startswith("["):
        host, closed, rest = portal[1:].partition("]")
        if not closed or (rest and not rest.startswith(":")):
            raise ValueError(portal)
        port = rest[1:]
    else:
        host, _, port = portal.partition(":")
    if not host or (port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536)):
        raise ValueError(portal)
    return host, int(port or PORT)


def _reach(portal: str, timeout: int) -> None:
    """Say at once, and in the system's words, when nobody answers: the library would wait for as long as TCP does."""
    try:
        host, port = split_portal(portal)
        socket.create_connection((host, port), timeout=timeout or None).close()
    except (OSError, ValueError) as error:
        number = error.errno if isinstance(error, OSError) and error.errno else errno.ECONNREFUSED
        if isinstance(error, TimeoutError):
            number = errno.ETIMEDOUT
        text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise HostError(
            f"Failed to connect to {portal}: {text}", path=portal, layer="iscsi", errno=abs(number)
        ) from error
