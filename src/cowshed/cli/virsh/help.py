"""What ``help``, ``--help`` and ``--version`` print, out of the table of commands."""

from __future__ import annotations

from .parse import Call, Failed
from .table import GROUPS, Command, Option, find, rows

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .session import Session

_OPTIONS = """
virsh [options]... [<command_string>]
virsh [options]... <command> [args...]

  options:
    -c | --connect=URI      hypervisor connection URI
    -d | --debug=NUM        debug level [0-4]
    -e | --escape <char>    set escape sequence for console
    -h | --help             this help
    -k | --keepalive-interval=NUM
                            keepalive interval in seconds, 0 for disable
    -K | --keepalive-count=NUM
                            number of possible missed keepalive messages
    -l | --log=FILE         output logging to file
    -q | --quiet            quiet mode
    -r | --readonly         connect readonly
    -t | --timing           print timing information
    -v                      short version
    -V                      long version
         --version[=TYPE]   version, TYPE is short or long (default short)
  commands (non interactive mode):

"""


def usage(session: Session) -> None:
    """``--help``."""
    session.write(_OPTIONS)
    for keyword, name in GROUPS.items():
        session.write(f" {name} (help keyword '{keyword}')\n{_list(keyword)}\n")
    session.write("\n  (specify help <group> for details about the commands in the group)\n")
    session.write("\n  (specify help <command> for details about the command)\n\n")


def long_version(session: Session) -> None:
    """``--version=long``."""
    from ...pool.backend.table import KINDS, supported
    from ..qemu_img.usage import package_version
    from .main import RELEASE

    kinds = " ".join(kind for kind in KINDS if supported(kind))
    session.write(
        f"virsh of cowshed {package_version()}, with the commands of libvirt {RELEASE}\n\n"
        f"Compiled with support for:\n Hypervisors: none, storage only\n Storage: {kinds}\n Miscellaneous: Secrets\n"
    )


def _list(keyword: str) -> str:
    return "".join(f"    {row[0]:<30} {row[2]}\n" for row in rows(keyword))


def help_(session: Session, call: Call) -> None:
    """The command: all of them, a group, or one."""
    # an empty name is none
    name = "".join(call.words("command")[:1])
    if not name:
        session.write("Grouped commands:\n\n")
        for keyword, title in GROUPS.items():
            session.write(f" {title} (help keyword '{keyword}'):\n{_list(keyword)}\n")
        return
    command = find(name)
    if command is not None:
        session.write(describe(command, ours=session.for_people))
    elif name in GROUPS:
        session.write(f" {GROUPS[name]} (help keyword '{name}'):\n{_list(name)}")
    elif name in GROUPS.values():
        keyword = next(word for word, title in GROUPS.items() if title == name)
        session.write(f" {name} (help keyword '{keyword}'):\n{_list(keyword)}")
    else:
        raise Failed(f"command or command group '{name}' doesn't exist")


def describe(command: Command, *, ours: bool = False) -> str:
    """The help of one command; with ``ours`` also the options that libvirt does not have."""
    options = [option for option in command.options if option.kind != "alias" and (ours or not option.ours)]
    lines = ["  NAME", f"    {command.name} - {command.summary}", "", "  SYNOPSIS"]
    lines.append(" ".join([f"    {command.name}", *(_synopsis(option) for option in options)]))
    if command.description:
        lines += ["", "  DESCRIPTION", f"    {command.description}"]
    if options:
        lines += ["", "  OPTIONS", *(f"    {_head(option):<15}  {option.help}" for option in options)]
    return "\n".join(lines) + "\n\n"


def _synopsis(option: Option) -> str:
    if option.kind == "bool":
        return f"[--{option.name}]"
    if option.kind == "argv":
        return "[<string>]..."
    if option.required:
        return f"<{option.name}>"
    return f"[--{option.name} <{'number' if option.kind == 'int' else 'string'}>]"


def _head(option: Option) -> str:
    if option.kind == "bool":
        return f"--{option.name}"
    if option.kind == "argv":
        return "<string>"
    kind = "number" if option.kind == "int" else "string"
    return f"[--{option.name}] <{kind}>" if option.kind == "data" else f"--{option.name} <{kind}>"
