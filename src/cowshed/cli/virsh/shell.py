"""virsh's own commands, and those about the connection."""

from __future__ import annotations

import os

from .parse import Call, Failed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .session import Session


def help(session: Session, call: Call) -> None:
    from .help import help_

    help_(session, call)


def echo(session: Session, call: Call) -> None:
    """The words, quoted for a shell or for XML where asked for; --split puts what commas part on lines of its own."""
    call.exclusive("shell", "xml")
    call.exclusive("shell", "split")
    call.exclusive("xml", "split")
    parts: list[str] = []
    for at, word in enumerate(call.words("string")):
        if at:
            parts.append(" ")
        pieces = (commas(word) if word else []) if call.flag("split") else [word]
        for piece in pieces:
            if call.flag("xml"):
                from .documents import escape

                piece = escape(piece)
            if call.flag("shell"):
                piece = _quoted(piece)
            parts.append(piece + "\n" * call.flag("split"))
    text = "".join(parts)
    if call.flag("err"):
        session.error(text)
    else:
        session.write(text)


def commas(text: str) -> list[str]:
    """What commas part; two of them are one that parts nothing."""
    pieces = [""]
    at = 0
    while at < len(text):
        if text[at] != ",":
            pieces[-1] += text[at]
        elif text.startswith(",,", at):
            pieces[-1] += ","
            at += 1
        else:
            pieces.append("")
        at += 1
    return pieces


def _quoted(text: str) -> str:
    if text and not any(char in "\t\n !\"#$&'()*;<>?[\\]^`{|}~" for char in text):
        return text
    return "'" + text.replace("'", "'\\''") + "'"


def cd(session: Session, call: Call) -> None:
    if not session.interactive:
        raise Failed("cd: command valid only in interactive mode")
    folder = call.text("dir") or os.path.expanduser("~") or "/"
    try:
        os.chdir(folder)
    except OSError as error:
        raise Failed(f"cd: {error.strerror}: {folder}") from error


def pwd(session: Session, call: Call) -> None:
    try:
        session.write(f"{os.getcwd()}\n")
    except OSError as error:
        raise Failed(f"pwd: cannot get current directory: {error.strerror}") from error


def quit(session: Session, call: Call) -> None:
    session.interactive = False


exit = quit


def connect(session: Session, call: Call) -> None:
    session.uri = call.text("name")
    session.readonly = call.flag("readonly")
    session.connect()


def uri(session: Session, call: Call) -> None:
    from .connection import default_uri

    session.host  # noqa: B018 - a connection is what this is about
    session.write(f"{session.uri or default_uri()}\n")


def version(session: Session, call: Call) -> None:
    from ..qemu_img.usage import package_version
    from .main import RELEASE

    session.host  # noqa: B018
    session.write(
        f"Compiled against library: libvirt {RELEASE}\nUsing library: libvirt {RELEASE}\n"
        f"Using API: cowshed {package_version()}\nCannot extract running cowshed hypervisor version\n"
    )
    if call.flag("daemon"):
        session.write(f"Running against daemon: {RELEASE}\n")
