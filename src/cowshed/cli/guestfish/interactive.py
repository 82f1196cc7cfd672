"""The shell: ``><fs>``."""

from __future__ import annotations

import os

from .fish import Fish, Left

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_BANNER = """
Welcome to guestfish, the guest filesystem shell for
editing virtual machine filesystems and disk images.

Type: ‘help’ for help on commands
      ‘man’ to read the manual
      ‘quit’ to quit the shell

"""
_LONGEST_HISTORY = 1000
#: what stands behind a backslash in GUESTFISH_PS1 and its like; readline wants \x01 and \x02 around what has no width
_SIGNS = {"\\": "\\", "[": "\x01", "]": "\x02", "a": "\a", "e": "\x1b", "n": "\n", "r": "\r"}


def loop(fish: Fish) -> bool:
    """Read commands until quit or the end of input."""
    fish.interactive = True
    prompt = unescape(os.environ.get("GUESTFISH_PS1", "><fs> "))
    before = unescape(os.environ.get("GUESTFISH_OUTPUT", ""))
    fish.out.write(unescape(os.environ.get("GUESTFISH_INIT", "")) + _BANNER)
    if fish.roots:
        from .inspected import summary

        fish.out.write(summary(fish, fish.roots[0]) + "\n")
    history = _prepare(fish)
    try:
        while True:
            fish.out.flush()
            try:
                text = input(prompt)
            except EOFError:
                break
            except KeyboardInterrupt:
                fish.out.write("\n")
                continue
            fish.out.write(before)
            try:
                fish.lines = _more()
                fish.run_line(text)
                fish.settle()
            except Left:
                break
            except KeyboardInterrupt:
                # what ran has been forgotten as a whole; the shell goes on
                fish.out.write("\n")
    finally:
        _keep(history)
        fish.out.write("\n" + unescape(os.environ.get("GUESTFISH_RESTORE", "")))
    return True


def unescape(text: str) -> str:
    """What GUESTFISH_PS1 and its like mean: characters behind backslashes, \\NNN in octal, \\xNN in hexadecimal."""
    found = []
    at = 0
    while at < len(text):
        char = text[at]
        following = text[at + 1 : at + 2]
        if char != "\\" or not following:
            found.append(char)
            at += 1
        elif following in _SIGNS:
            found.append(_SIGNS[following])
            at += 2
        else:
            digits, base = (text[at + 2 : at + 4], 16) if following == "x" else (text[at + 1 : at + 4], 8)
            try:
                found.append(chr(int(digits, base)))
                at += 4
            except ValueError:
                found.append(char)
                at += 1
    return "".join(found)


def _more() -> Iterator[str]:
    """Lines of a here-document."""
    while True:
        try:
            yield input("> ")
        except EOFError:
            return


def _prepare(fish: Fish) -> str | None:
    try:
        import readline
    except ImportError:
        return None
    from .complete import DELIMITERS, completer

    readline.set_completer(completer(fish))
    readline.set_completer_delims(DELIMITERS)
    readline.parse_and_bind("tab: complete")
    readline.parse_and_bind("set completion-ignore-case on")
    try:
        # what somebody has set for himself counts more
        readline.read_init_file()
    except OSError:
        pass
    readline.set_history_length(_LONGEST_HISTORY)
    path = os.path.join(os.path.expanduser("~"), ".guestfish")
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
        # it may hold keys: nobody else's from the beginning
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        readline.write_history_file(path)
        os.chmod(path, 0o600)
    except OSError:
        pass
