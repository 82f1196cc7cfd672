"""``pool-edit``: the document in an editor, as often as it takes."""

from __future__ import annotations

import os

from ...errors import CowshedError
from .parse import Call, Failed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .session import Session

_CHOICES = (
    "y - yes, start editor again",
    "n - no, throw away my changes",
    "f - force, try to redefine again",
    "? - print this help",
)


def pool_edit(session: Session, call: Call) -> None:
    pool = session.pool(call)
    before = pool.xml(inactive=True)
    path = _temporary(before)
    try:
        again = True
        while True:
            if again:
                _run_editor(path)
                after = _read(path)
                if after == before:
                    session.extra(f"Pool {pool.name} XML configuration not changed.\n")
                    return
            now = pool.xml(inactive=True)
            trouble: CowshedError | None = None
            if _lasting(now) != _lasting(before):
                # somebody else was here meanwhile; the next try is against what they made
                message = "ERROR: the XML configuration was changed by another user"
                before = now
            else:
                message = "Failed."
                try:
                    edited = session.host.define(after)
                    session.extra(f"Pool {edited.name} XML configuration edited.\n")
                    return
                except CowshedError as error:
                    trouble = error
            answer = _ask(session, message, trouble)
            if answer == "n":
                raise Failed
            if answer == "":
                raise Failed(message if trouble is None else "", trouble)
            again = answer == "y"
    finally:
        os.unlink(path)


def _lasting(text: str) -> str:
    """A document without the figures, which an active pool's change by themselves."""
    figures = ("  <capacity ", "  <allocation ", "  <available ")
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith(figures))


def _temporary(text: str) -> str:
    from tempfile import mkstemp

    try:
        fd, path = mkstemp(prefix="virsh", suffix=".xml")
    except OSError as error:
        raise Failed(f"g_mkstemp: failed to create temporary file: {error.strerror}") from error
    with open(fd, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        file.write(text)
    return path


def _read(path: str) -> str:
    from .documents import LONGEST

    try:
        with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
            return file.read(LONGEST)
    except OSError as error:
        raise Failed(f"{path}: failed to read temporary file: {error.strerror}") from error


def _run_editor(path: str) -> None:
    """Let the user's editor change a file; the variables may hold options, and whatever a shell understands."""
    from subprocess import run

    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    argv = ["sh", "-c", f'{editor} "$1"', "sh", path]
    if not any(char in " \t\n!\"#$&'()*;<>?[\\]^`{|}~" for char in editor):
        argv = [editor, path]
    try:
        code = run(argv, check=False).returncode
    except OSError as error:
        raise Failed(f"cannot execute binary {editor}: {error.strerror}") from error
    if code:
        how = f"exit status {code}" if code > 0 else f"fatal signal {-code}"
        shown = f"{editor} {path}"
        raise Failed(f"internal error: Child process ({shown}) unexpected {how}")


def _ask(session: Session, message: str, trouble: CowshedError | None) -> str:
    """What to do now: y, n or f; "" when there is nobody to ask."""
    if not os.isatty(0):
        return ""
    if trouble is not None:
        session.report(trouble)
    import termios
    import tty

    state = termios.tcgetattr(0)
    try:
        tty.setcbreak(0)
        while True:
            session.write(f"\r{message} Try again? [y,n,f,?]: ")
            session.out.flush()
            answer = os.read(0, 1).decode("ascii", "replace").lower()
            if answer == "?":
                session.write("\r\n" + "".join(f"{line}\r\n" for line in _CHOICES))
            elif answer in ("y", "n", "f"):
                break
            elif not answer:
                answer = "n"
                break
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, state)
    session.write("\r\n")
    return answer
