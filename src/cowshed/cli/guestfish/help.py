"""help, --help and -h."""

from __future__ import annotations

from .table import Command, commands, find

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..output import Output

#: the release of guestfish whose commands, texts and exit codes are kept
RELEASE = "1.48.6"
#: columns of a page
_WIDTH = 78

_USAGE = """guestfish: guest filesystem shell
Usage:
  guestfish [--options] cmd [: cmd : cmd ...]
  guestfish [--ro] -a image -i [cmd [: cmd ...]]
Options:
  -a|--add image       Open a disk image, a device or a URI
  --blocksize[=512|4096]
                       Bytes of a sector of the disks that follow
  -c|--connect uri     Whose domains -d means: qemu:///system or qemu:///session
  --csh                --listen prints what csh understands
  -d|--domain guest    Open the disks that a libvirt domain's definition names
  --echo-keys          Show passphrases while they are typed
  -f|--file file       Read commands from a file
  --format[=raw|..]    Format of the images that follow, instead of looking
  -h|--cmd-help [cmd]  List the commands, or show help on one
  --help               Show this text
  -i|--inspector       Find the system on the disks and mount what it mounts
  --key selector       Open LUKS with a key: ID:key:WORD or ID:file:NAME, where
                       ID is a device, a UUID or all
  --keys-from-stdin    Read passphrases from standard input, a line each
  --listen             Go into the background and take commands from --remote
  -m|--mount dev[:mnt[:opts[:fstype]]]
                       Mount a device, on / where nothing else is said
  -N|--new [filename=]type
                       Make a disk of a prepared type (-N help lists them)
  -n|--no-sync         No last sync
  --network            Taken, and without effect
  --no-dest-paths      The Tab key does not look into the guest
  --no-progress-bars   No progress bars
  --pipe-error         An error of what reads a command's output counts
  --progress-bars      Progress bars also where nobody types
  --remote[=pid]       Send the commands to a guestfish that listens
  -r|--ro              Open and mount read-only: changes are forgotten
  --selinux            Taken, and without effect
  -v|--verbose         Say more
  -V|--version         Show the version
  -w|--rw              Open and mount for writing (the default)
  -x                   Show each command before it is carried out

Without commands they are read from standard input: with a prompt on a terminal.
"""

_FIRST = """Which disks are looked at say the options -a and -d, or the command ‘add’; new
ones are made by -N, or by the commands ‘alloc’ and ‘sparse’. Then ‘run’ opens
them, ‘list-filesystems’ shows what is on them, and ‘mount’ makes it a tree.

‘help cmd’ tells about one command, ‘help --list’ shows all of them.

‘man’ opens the manual.

"""


def usage(out: Output) -> None:
    out.write(_USAGE)


def first(out: Output) -> None:
    """What ``help`` alone says."""
    out.write(_FIRST)


def describe(known: Command) -> str:
    """A command's page: its name, how it is used, and what it does with what."""
    from .pages import describe as text

    parts = [f"NAME\n    {known.name} - {known.help}\n", f"SYNOPSIS\n     {known.usage}\n"]
    parts.append("DESCRIPTION\n" + "\n".join(_wrapped(paragraph) for paragraph in text(known)))
    return "\n".join(parts) + "\n"


def _wrapped(paragraph: str) -> str:
    """A paragraph as lines; one that begins with a blank stays as it is, a list of arguments hangs."""
    if paragraph.startswith(" "):
        return "".join(f"    {line}\n" for line in paragraph.splitlines())
    lines: list[str] = []
    line = ""
    for word in paragraph.split():
        if line and len(line) + 1 + len(word) > _WIDTH - 4:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    return "".join(f"    {one}\n" for one in (*lines, line))


def list_commands(out: Output, name: str | None) -> int:
    """``-h`` and ``help``: the page of one command, or the list of all. Returns the exit status."""
    if name is not None:
        known = find(name)
        if known is None:
            out.raw(f"{name}: command not known: use -h to list all commands\n")
            return 1
        out.write(describe(known))
        return 0
    rows = []
    for known in commands():
        rows.append((known.name, known.help))
        # other names of old: known, but not shown
        shown = [other for other in known.names[1:] if not other.endswith("-opts")]
        rows += [(other, f"alias for '{known.name}'") for other in shown]
    # the two that one needs first, first
    rows.sort(key=lambda row: (row[0] not in ("help", "quit"), row[0]))
    out.write("    Command              Description\n")
    for name, text in rows:
        out.write(f"{name:<20} {text}\n")
    out.write("    Use -h <cmd> / help <cmd> to show detailed help for a command.\n")
    return 0
