"""``virsh``: from the command line to the commands."""

from __future__ import annotations

import os

from .parse import Failed, Refused, parse, split
from .session import Session

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..output import Output

#: the release of virsh whose commands, texts and exit codes are kept
RELEASE = "9.0.0"

#: short, long, whether a value follows: "no", "must", "may"
_OPTIONS = (
    ("c", "connect", "must"),
    ("d", "debug", "must"),
    ("e", "escape", "must"),
    ("h", "help", "no"),
    ("k", "keepalive-interval", "must"),
    ("K", "keepalive-count", "must"),
    ("l", "log", "must"),
    ("q", "quiet", "no"),
    ("r", "readonly", "no"),
    ("t", "timing", "no"),
    ("v", "version", "may"),
)


def main(argv: list[str], out: Output) -> int:
    """``argv``: the program's name and what follows it. Returns the exit status."""
    session = Session(out)
    try:
        words = _options(session, argv[1:])
        if words is None:
            return 0
        session.uri = session.uri or os.environ.get("VIRSH_DEFAULT_CONNECT_URI") or None
        if len(words) == 1:
            if not words[0]:
                return 1
            calls = parse(split(words[0]))
        else:
            calls = parse(iter(words), argv=True)
        if session.uri is not None:
            session.connect()
            session.tell_recovered()
    except Refused as refused:
        for line in refused.args:
            session.error(line)
        return 1
    except Failed as failed:
        if failed.text:
            session.error(failed.text)
        if failed.cause is not None:
            session.report(failed.cause)
        return 1
    if words:
        return 0 if session.run(calls) else 1
    from .interactive import loop

    loop(session)
    return 0


def _options(session: Session, args: list[str]) -> list[str] | None:
    """Take virsh's own options, which stand before the command; the words after them, or None when all is said.

    Raises Refused.
    """
    at = 0
    while at < len(args):
        word = args[at]
        if word == "--":
            return args[at + 1 :]
        if not word.startswith("-") or word == "-":
            return args[at:]
        at += 1
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            short, takes = _long(word, name)
            given: str | None = value if equals else None
            if given is not None and takes == "no":
                raise Refused(f"unsupported option '-{short}'. See --help.")
            if given is None and takes == "must":
                if at >= len(args):
                    raise _lacking(short)
                given = args[at]
                at += 1
            if not _take(session, short, given, long=True):
                return None
            continue
        rest = word[1:]
        while rest:
            short, rest = rest[0], rest[1:]
            takes = next((row[2] for row in _OPTIONS if row[0] == short), "")
            if short == "V":
                takes = "no"
            if not takes:
                raise Refused(f"unsupported option '-{short}'. See --help.")
            given = None
            if takes == "must":
                if rest:
                    given, rest = rest, ""
                elif at >= len(args):
                    raise _lacking(short)
                else:
                    given = args[at]
                    at += 1
            if not _take(session, short, given, long=False):
                return None
    return []


def _long(word: str, name: str) -> tuple[str, str]:
    """(short name, takes) of a long option that may be abbreviated."""
    found = [row for row in _OPTIONS if row[1] == name] or [row for row in _OPTIONS if row[1].startswith(name)]
    if len(found) != 1 or not name:
        raise Refused(f"unsupported option '{word}'. See --help.")
    return found[0][0], found[0][2]


def _lacking(short: str) -> Refused:
    name = next(row[1] for row in _OPTIONS if row[0] == short)
    return Refused(f"option '-{short}'/'--{name}' requires an argument")


def _take(session: Session, short: str, value: str | None, *, long: bool) -> bool:
    """Do what an option says; False when nothing else is to be done. Raises Refused, Failed."""
    name = f"--{next((row[1] for row in _OPTIONS if row[0] == short), '')}" if long else f"-{short}"
    text = value or ""
    if short == "c":
        session.uri = text or None
    elif short == "d":
        level = _number(text)
        if level is None:
            raise Refused(f"option {name} takes a numeric argument")
        if not 0 <= level <= 4:
            session.error(f"ignoring debug level {level} out of range [0-4]")
        else:
            session.debug = level
    elif short == "e":
        # consoles have it; we have none, but scripts give it
        control = len(text) == 2 and text[0] == "^" and "@" <= text[1].upper() <= "_"
        if not control and (len(text) != 1 or text == "^"):
            raise Refused(f"Invalid string '{text}' for escape sequence")
    elif short in "kK":
        count = _number(text, 0)
        if count is None:
            raise Refused(f"Invalid value for option {name}")
        if count < 0:
            raise Refused(f"option {name} requires a positive integer argument")
    elif short == "l":
        session.open_log(text)
    elif short == "q":
        session.quiet = True
    elif short == "r":
        session.readonly = True
    elif short == "t":
        session.timing = True
    else:
        if short == "h":
            from .help import usage

            usage(session)
        elif short == "V" or value == "long":
            from .help import long_version

            long_version(session)
        else:
            session.write(f"{RELEASE}\n")
        return False
    return True


def _number(text: str, base: int = 10) -> int | None:
    """An int as C's strtol has it, or None."""
    body = text.strip(" \t\n\v\f\r") if text[-1:].isdigit() or text[-1:].isalpha() else text
    try:
        if "_" in body or not body.isascii():
            return None
        if base == 0 and body.lstrip("+-").startswith("0") and body.lstrip("+-0").isdigit() and "x" not in body.lower():
            base = 8
        value = int(body, base)
    except ValueError:
        return None
    return value if -(1 << 31) <= value < 1 << 31 else None
