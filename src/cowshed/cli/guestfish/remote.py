"""``--remote``: commands go to a guestfish that listens. Also what both ends agree on.

A request is a header and words. The header, with which descriptors 0, 1 and 2 of the command travel (SCM_RIGHTS):

    magic    4 bytes   of this protocol and its version
    flags    u32       1: an error does not count
    words    u32       how many
    length   u32       bytes of the words, each ended by a zero byte

The answer is the magic and the command's status, s32: 0 it went well, 1 it failed, 2 the server ends.
"""

from __future__ import annotations

import os
import socket
import stat as _stat
import struct

from ...errors import CowshedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from .fish import Fish

MAGIC = b"cwf1"
HEADER = struct.Struct("<4sIII")
ANSWER = struct.Struct("<4si")
IGNORE = 1
#: bounds of a request: bytes of its words, and their number
LONGEST = 64 << 20
MOST = 1 << 20
GOOD, BAD, ENDED = 0, 1, 2
INSECURE = "‘{}’ is not a directory or has insecure owner or permissions"


class RemoteError(CowshedError):
    """The server can't be asked, or what came is no request; the text is for a person."""


def folder() -> str:
    """The directory of this user's sockets."""
    return f"/tmp/.guestfish-{os.geteuid()}"


def address(pid: int) -> str:
    return f"{folder()}/socket-{pid}"


def is_safe(path: str) -> bool:
    """Is it a directory, not a link to one, that nobody else can change?"""
    try:
        facts = os.lstat(path)
    except OSError:
        return False
    mode = facts.st_mode
    return _stat.S_ISDIR(mode) and facts.st_uid == os.geteuid() and _stat.S_IMODE(mode) == 0o700


def is_ours(connection: socket.socket) -> bool:
    """Is the other end a process of this user?"""
    credentials = getattr(socket, "SO_PEERCRED", None)
    if credentials is None:
        # the directory lets nobody else in
        return True
    _, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, credentials, 12))
    return bool(uid == os.geteuid())


def receive(connection: socket.socket, count: int) -> bytes:
    """Exactly ``count`` bytes. Raises RemoteError where the other end went away, TimeoutError."""
    parts = []
    while count:
        data = connection.recv(min(count, 1 << 20))
        if not data:
            raise RemoteError("the other end has closed the connection")
        parts.append(data)
        count -= len(data)
    return b"".join(parts)


class Remote:
    """A server as its clients see it: the process ``pid``."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def call(self, words: Sequence[str], *, stdin: int, stdout: int, ignore: bool = False) -> int:
        """Carry out a command over there and wait for it: GOOD, BAD or ENDED. Raises RemoteError."""
        payload = b"".join(os.fsencode(word) + b"\0" for word in words)
        if len(payload) > LONGEST or len(words) > MOST:
            raise RemoteError("remote: the command is too long to be sent")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            self._connect(connection)
            try:
                header = HEADER.pack(MAGIC, IGNORE if ignore else 0, len(words), len(payload))
                socket.send_fds(connection, [header], [stdin, stdout, 2])
                connection.sendall(payload)
                magic, status = ANSWER.unpack(receive(connection, ANSWER.size))
            except (OSError, RemoteError) as error:
                raise RemoteError("remote: the server went away before the command was done") from error
        if magic != MAGIC:
            raise RemoteError("remote: the server is of another version")
        return int(status)

    def _connect(self, connection: socket.socket) -> None:
        down = "remote: looks like the server is not running"
        path = address(self.pid)
        try:
            os.kill(self.pid, 0)
        except PermissionError:
            pass
        except (OSError, OverflowError) as error:
            raise RemoteError(down) from error
        try:
            os.lstat(path)
            if not is_safe(folder()):
                # whoever sits there instead would get what is sent
                raise RemoteError(INSECURE.format(folder()))
            connection.connect(path)
            if not is_ours(connection):
                raise RemoteError("remote: the server belongs to another user")
        except OSError as error:
            raise RemoteError(down, hint=f"{path}: {error.strerror}\n") from error


def given_pid(value: str | None) -> int:
    """The server's process: from --remote=PID, else from the environment; 0: no server. Raises RemoteError."""
    text = (os.environ.get("GUESTFISH_PID", "") if value is None else value).lstrip(" \t\n\v\f\r")
    sign = -1 if text.startswith("-") else 1
    if text[:1] in ("-", "+"):
        text = text[1:]
    digits = text[: len(text) - len(text.lstrip("0123456789"))]
    if digits:
        return sign * int(digits[:18])
    if value is None:
        raise RemoteError("remote: $GUESTFISH_PID must be set to the PID of the remote process")
    raise RemoteError(f"--listen=PID: PID was not a number: {value}")


def forward(fish: Fish, remote: Remote, words: list[str]) -> bool:
    """Have a command carried out over there; tells what goes wrong with that. Raises Left when it ended the server."""
    from .arguments import Refused
    from .fish import Left

    try:
        words, stdin = _input(fish, words)
    except Refused as refused:
        fish.say(str(refused))
        return False
    fish.out.flush()
    try:
        status = remote.call(words, stdin=stdin, stdout=fish.out.fd, ignore=fish.ignore or fish.interactive)
    except RemoteError as error:
        fish.out.raw(f"{error.hint or ''}guestfish: {error}\n")
        return False
    finally:
        if stdin:
            os.close(stdin)
    if status == ENDED:
        raise Left
    return status == GOOD


def _input(fish: Fish, words: list[str]) -> tuple[list[str], int]:
    """The command with here-documents replaced, and its standard input: the document, or the caller's own; nothing
    where commands are read from there."""
    from .table import find

    known = find(words[0])
    if known is not None:
        fixed = [one for one in known.arguments if not one.optional]
        for at, (argument, word) in enumerate(zip(fixed, words[1:], strict=False), 1):
            if argument.type == "in" and word.startswith("-<<") and len(word) > 3:
                import tempfile

                with tempfile.TemporaryFile() as file:
                    file.write(fish.heredoc(word[3:]))
                    file.flush()
                    file.seek(0)
                    return [*words[:at], "-", *words[at + 1 :]], os.dup(file.fileno())
    if fish.from_stdin:
        return words, os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    return words, 0
