"""The shell: ``virsh #``."""

from __future__ import annotations

import os
import sys

from .parse import Failed, Refused, parse, split

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .session import Session

_LONGEST_HISTORY = 500


def loop(session: Session) -> None:
    """Read commands until quit or the end of input."""
    session.interactive = True
    session.extra(
        "Welcome to virsh, the virtualization interactive terminal.\n\n"
        "Type:  'help' for help with commands\n       'quit' to quit\n\n"
    )
    history = _prepare(session)
    try:
        _read_commands(session)
    finally:
        _keep(history)
    session.write("\n")


def _read_commands(session: Session) -> None:
    while session.interactive:
        try:
            line = _line(session)
        except KeyboardInterrupt:
            session.write("\n")
            continue
        if line is None:
            return
        if not line:
            continue
        try:
            session.run(parse(split(line)))
        except Refused as refused:
            for text in refused.args:
                session.error(text)
        except Failed as failed:
            session.error(failed.text)
        except KeyboardInterrupt:
            # what ran has cleaned up behind itself; the shell goes on
            session.write("\n")


def _line(session: Session) -> str | None:
    """One line, None at the end of input."""
    prompt = "virsh > " if session.readonly else "virsh # "
    session.out.flush()
    if os.isatty(0) and os.isatty(1):
        try:
            return input(prompt)
        except EOFError:
            return None
    session.write(prompt)
    session.out.flush()
    data = sys.stdin.buffer.readline()
    if not data:
        return None
    line = os.fsdecode(data).removesuffix("\n")
    session.write(f"{line}\n")
    return line


def _prepare(session: Session) -> str | None:
    """Set up readline on a terminal. Returns where the history is kept."""
    if not (os.isatty(0) and os.isatty(1)):
        return None
    try:
        import readline
    except ImportError:
        return None
    from .complete import completer

    readline.set_completer(completer(session))
    readline.set_completer_delims(" \t\n;")
    readline.parse_and_bind("tab: complete")
    size = os.environ.get("VIRSH_HISTSIZE", "")
    readline.set_history_length(int(size) if size.isdigit() else _LONGEST_HISTORY)
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    path = os.path.join(cache, "libvirt", "virsh", "history")
    try:
        readline.read_history_file(path)
    except OSError:
        pass
    return path


def _keep(path: str | None) -> None:
    if path is None:
        return
    import readline

    try:
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        readline.write_history_file(path)
    except OSError:
        pass
