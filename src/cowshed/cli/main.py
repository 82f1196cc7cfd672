"""``cowshed TOOL …`` and the tools under their own names: from the process to a tool's front end, and back to an exit.

Everything is loaded when it is needed: this module, and what it imports, is what every call of every tool pays for.
"""

from __future__ import annotations

import gc

# Loading modules makes many objects and no garbage: looking for some again and again is a tenth of a short command.
gc.set_threshold(50_000, 20, 20)

import os  # noqa: E402
import sys  # noqa: E402
from _signal import SIG_DFL, SIGINT, default_int_handler, getsignal, signal  # type: ignore[import-not-found]  # noqa: E402

# Until something runs that must be put in order, Ctrl-C simply ends the process: no traceback out of an import.
_INTERRUPTIBLE = getsignal(SIGINT) is default_int_handler
if _INTERRUPTIBLE:
    signal(SIGINT, SIG_DFL)

from .output import Output, Stop  # noqa: E402

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    Front = Callable[[list[str], Output], int]

#: tool -> the module of its front end; its ``main(argv, out)`` gets argv with the program's name first
TOOLS = {
    "qemu-img": "cowshed.cli.qemu_img.dispatch",
    "virsh": "cowshed.cli.virsh.main",
    "guestfish": "cowshed.cli.guestfish.main",
    "virt-cat": "cowshed.cli.guestfish.tools.cat",
    "virt-ls": "cowshed.cli.guestfish.tools.ls",
    "virt-edit": "cowshed.cli.guestfish.tools.edit",
    "virt-df": "cowshed.cli.guestfish.tools.df",
    "virt-filesystems": "cowshed.cli.guestfish.tools.filesystems",
    "virt-inspector": "cowshed.cli.guestfish.tools.inspector",
    "virt-tail": "cowshed.cli.guestfish.tools.tail",
    "virt-log": "cowshed.cli.guestfish.tools.log",
    "virt-copy-in": "cowshed.cli.guestfish.tools.copy_in",
    "virt-copy-out": "cowshed.cli.guestfish.tools.copy_out",
    "virt-tar-in": "cowshed.cli.guestfish.tools.tar_in",
    "virt-tar-out": "cowshed.cli.guestfish.tools.tar_out",
}

#: commands of cowshed itself -> (module, its line of help); ``run(argv, out)`` gets what follows the command
COMMANDS = {
    "tour": ("cowshed.cli.tour", "show what cowshed does, on real files, in a few seconds"),
    "inspect": ("cowshed.cli.inspect", "what an image is and what it names, opening nothing but the file given"),
    "pools": ("cowshed.cli.pools", "start the pools marked for it; show and cancel the work under way"),
    "links": ("cowshed.cli.links", "make launchers under the tools' own names in a directory"),
    "completion": ("cowshed.cli.completion", "completion for bash, zsh or fish"),
}


def main() -> NoReturn:
    """The ``cowshed`` command."""
    argv = sys.argv[1:]
    if argv and argv[0] in TOOLS:
        out = Output(argv[0])
        _leave(call(argv[0], argv, out), out)
    out = Output("cowshed")
    if argv and argv[0] in COMMANDS:
        out.prog = f"cowshed {argv[0]}"
        _leave(_guarded(COMMANDS[argv[0]][0], "run", argv[1:], out), out)
    _leave(_house(argv, out), out)


def tool(name: str) -> NoReturn:
    """A tool under its own name: what the launchers made by ``cowshed links`` call."""
    prog = os.path.basename(sys.argv[0])
    out = Output(prog, under_link=True)
    _leave(call(name, [prog, *sys.argv[1:]], out), out)


def call(name: str, argv: list[str], out: Output, *, within: bool = False) -> int:
    """Run a tool with ``argv`` (its first item is the program's name) and return its exit status.

    Raises nothing: what goes wrong is told on ``out``. Ctrl-C and a reader that went away end the process as they would
    end a C program; ``within`` another command, which has something to put in order, they raise KeyboardInterrupt and
    BrokenPipeError.
    """
    return _guarded(TOOLS[name], "main", argv, out, within)


def _house(argv: list[str], out: Output) -> int:
    """cowshed's own --help and --version, and what is no tool."""
    if not argv or argv[0] in ("-h", "--help", "help"):
        lines = ["usage: cowshed TOOL [ARGUMENTS]", "       cowshed COMMAND [ARGUMENTS]", ""]
        lines += ["Tools, with the arguments and output of the original:"]
        lines += [f"  {name}" for name in TOOLS]
        lines += ["", "Commands:"]
        lines += [f"  {name:<12} {text}" for name, (_, text) in COMMANDS.items()]
        lines += ["", "Options:", "  -h, --help     this text", "  -V, --version  the version of cowshed"]
        text = "\n".join(lines) + "\n"
        if argv:
            out.write(text)
            return 0
        out.raw(text)
        return 1
    if argv[0] in ("-V", "--version"):
        from .qemu_img.usage import package_version

        out.write(f"cowshed {package_version()}\n")
        return 0
    out.error(f"'{argv[0]}' is neither a tool nor a command of cowshed", "Try 'cowshed --help'\n")
    return 1


def _guarded(module: str, name: str, argv: list[str], out: Output, within: bool = False) -> int:
    """Run a front end; what escapes it becomes one line and an exit status, or the signal that it stands for."""
    _standard_streams()
    try:
        front: Front = getattr(__import__(module, fromlist=(name,)), name)
        if _INTERRUPTIBLE:
            signal(SIGINT, default_int_handler)
        return front(argv, out)
    except Stop as stop:
        return stop.code
    except KeyboardInterrupt:
        if within:
            raise
        _die("SIGINT", out)
    except BrokenPipeError:
        if within:
            raise
        _die("SIGPIPE", out)
    except MemoryError:
        out.error("out of memory")
        return 1
    except Exception as error:
        from ..errors import CowshedError

        if os.environ.get("COWSHED_DEBUG") == "1":
            import traceback

            out.raw(traceback.format_exc())
        if isinstance(error, CowshedError):
            out.report(error)
        else:
            text = " ".join(f"{type(error).__name__}: {error}".split())
            out.error(f"internal error: {text}")
        return 1


def _standard_streams() -> None:
    """Open what the caller closed of 0, 1 and 2, so that no image gets the number that messages are written to."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _die(name: str, out: Output) -> NoReturn:
    """End as the signal would have ended a C program, so that the shell sees it."""
    import signal

    number = getattr(signal, name)
    out.flush()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    os._exit(128 + number)


def _leave(code: int, out: Output) -> NoReturn:
    out.flush()
    if out.failed is not None and code == 0:
        # qemu-img succeeds here; whoever reads half of a map had better know.
        out.error(f"could not write to standard output: {out.failed.strerror}")
        code = 1
    if "threading" not in sys.modules:
        # A short command: taking the interpreter apart again would be a tenth of what it costs. What runs at exit
        # still runs; with threads about, Python itself must wait for them.
        import atexit

        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (AttributeError, OSError, ValueError):
                pass  # closed, or nobody reads it: what the tools print does not go through it
        os._exit(code)
    sys.exit(code)
