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


def loop(fish: Fish) -> bool:
    """Read commands until quit or the end of input."""
    fish.interactive = True
    prompt = os.environ.get("GUESTFISH_PS1", "><fs> ")
    fish.out.write(os.environ.get("GUESTFISH_INIT", "") + _BANNER)
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
                fish.out.write("\n")
                break
            except KeyboardInterrupt:
                fish.out.write("\n")
                continue
            try:
                fish.lines = _more()
                fish.run_line(text)
            except Left:
                break
            except KeyboardInterrupt:
                # what ran is forgotten as a whole; the shell goes on
                fish.session.tree.discard()
                fish.out.write("\n")
    finally:
        _keep(history)
        fish.out.write(os.environ.get("GUESTFISH_RESTORE", ""))
    return True


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
    from .complete import completer

    readline.set_completer(completer(fish))
    readline.set_completer_delims(" \t\n")
    readline.parse_and_bind("tab: complete")
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
        readline.write_history_file(path)
        os.chmod(path, 0o600)
    except OSError:
        pass
