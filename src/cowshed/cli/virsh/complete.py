"""Completion of a command line: for readline, and for shells by the hidden command ``complete``."""

from __future__ import annotations

import os

from ...errors import CowshedError
from .parse import Call, Failed, Refused, split
from .table import Command, Option, find, names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .session import Session

#: option -> the words it may have, where these are always the same
_WORDS = {
    "algorithm": "zero nnsa dod bsi gutmann schneier pfitzner7 pfitzner33 random trim",
    "format": "raw qcow2 vmdk",
    "backing-vol-format": "raw qcow2 vmdk",
    "auth-type": "chap ceph",
    "source-protocol-ver": "3 4 4.1 4.2",
}
_ACTIVE = frozenset(("pool-destroy", "pool-refresh"))
_INACTIVE = frozenset(("pool-start", "pool-build", "pool-delete", "pool-undefine"))


def complete(session: Session, call: Call) -> None:
    """The common beginning of the matches, then each of them, as readline reports them."""
    # a completion never asks anything
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    session.host  # noqa: B018 - as any command
    words = call.words("string")
    matches = candidates(session, " ".join(words))
    if not matches:
        raise Failed
    if len(matches) > 1:
        # in order, so what the first and the last have in common, all have
        first, last = matches[0], matches[-1]
        common = next((at for at in range(len(first)) if first[at : at + 1] != last[at : at + 1]), len(first))
        session.write(first[:common] + "\n")
    session.write("".join(f"{match}\n" for match in matches))


def completer(session: Session) -> Callable[[str, int], str | None]:
    """For readline."""
    found: list[str] = []

    def answer(text: str, state: int) -> str | None:
        if state == 0:
            import readline

            found[:] = candidates(session, readline.get_line_buffer()[: readline.get_endidx()])
        if state >= len(found):
            return None
        return found[state] + " " * (len(found) == 1 and not found[0].endswith("/"))

    return answer


def candidates(session: Session, line: str) -> list[str]:
    """What the last word of a line, which may be empty, can become; in order."""
    try:
        words = list(split(line))
    except Refused:
        return []
    last = ""
    if line and line[-1] not in " \t;\n" and words and words[-1] is not None:
        last = words.pop() or ""
    # only the command that the cursor is in
    for at in range(len(words) - 1, -1, -1):
        if words[at] is None:
            del words[: at + 1]
            break
    before = [word for word in words if word is not None]
    if not before:
        return sorted(name for name in names() if name.startswith(last))
    command = find(before[0])
    if command is None:
        return []
    try:
        found = _after(session, command, before[1:], last)
    except (CowshedError, Failed, OSError):
        return []
    return sorted({word for word in found if word.startswith(last)})


def _after(session: Session, command: Command, before: list[str], last: str) -> list[str]:
    """Words that may follow ``before`` in a command."""
    values: dict[str, list[str]] = {}
    waiting = [option for option in command.options if option.positional]
    words = iter(before)
    pending: Option | None = None
    for word in words:
        if word.startswith("--") and len(word) > 2:
            name, equals, value = word[2:].partition("=")
            option = next((option for option in command.options if option.name == name), None)
            if option is None or option.kind == "bool":
                values[name] = []
                continue
            given = value if equals else next(words, None)
            if given is None:
                pending = option
                break
            values[option.name] = [given]
            waiting = [other for other in waiting if other is not option]
        elif waiting:
            values[waiting[0].name] = [word]
            if waiting[0].kind != "argv":
                del waiting[0]
    if pending is not None:
        return _words(session, command, pending, values, last)
    left = [option for option in command.options if option.kind != "alias" and option.name not in values]
    if last.startswith("-"):
        return [f"--{option.name}" for option in left]
    if waiting and (waiting[0].required or waiting[0].name in ("pool", "secret", "command", "dir")):
        return _words(session, command, waiting[0], values, last)
    return [f"--{option.name}" for option in left]


def _words(session: Session, command: Command, option: Option, values: dict[str, list[str]], last: str) -> list[str]:
    """What an option's value may be."""
    name = option.name
    if name in ("pool", "inputpool"):
        pools = session.host.pools()
        if command.name in _ACTIVE or command.name.startswith("vol-"):
            pools = [pool for pool in pools if pool.active]
        elif command.name in _INACTIVE:
            pools = [pool for pool in pools if not pool.active]
        if command.name == "pool-name":
            return [pool.uuid or "" for pool in pools]
        return [pool.name for pool in pools]
    if name in ("vol", "backing-vol"):
        return _volumes(session, command, values)
    if name == "secret":
        return [secret.uuid for secret in session.host.secrets.list()]
    if name == "event":
        return ["lifecycle", "refresh" if command.name == "pool-event" else "value-changed"]
    if name == "type":
        from ...pool.backend.table import KINDS, supported

        return [kind for kind in KINDS if supported(kind)]
    if name == "command":
        from .table import GROUPS

        return [*names(), *GROUPS]
    if name in ("file", "srcSpec", "dir", "target", "source-path", "source-dev"):
        return _files(last)
    return _WORDS.get(name, "").split()


def _volumes(session: Session, command: Command, values: dict[str, list[str]]) -> list[str]:
    pool_option = "inputpool" if command.name == "vol-create-from" else "pool"
    given = values.get(pool_option)
    if given:
        return [name for name, _ in session.host.pool(given[0]).volume_names()]
    found = []
    for pool in session.host.pools():
        if pool.active:
            found += [path for _, path in pool.volume_names()]
    return found


def _files(last: str) -> list[str]:
    folder, slash, _ = last.rpartition("/")
    where = folder + slash
    try:
        entries = list(os.scandir(where or "."))
    except OSError:
        return []
    return [where + entry.name + "/" * entry.is_dir() for entry in entries]
