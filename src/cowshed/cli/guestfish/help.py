"""help, --help and -h."""

from __future__ import annotations

from .table import Command, commands, find

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..output import Output

#: the release of guestfish whose commands, texts and exit codes are kept
RELEASE = "1.48.6"

_USAGE = """guestfish: guest filesystem shell
Usage:
  guestfish [--options] cmd [: cmd : cmd ...]
  guestfish [--ro] -a <dom.img> -m <dev> [-i]
Options:
  -h|--cmd-help        List available commands
  -h|--cmd-help cmd    Display detailed help on 'cmd'
  -a|--add image       Add image
  --blocksize[=512|4096]  Sector size of the disks that follow
  -d|--domain guest    Add disks from a libvirt domain XML
  -f|--file file       Read commands from file
  --format[=raw|..]    Force disk format for -a option
  -i|--inspector       Automatically mount filesystems
  --key selector       Specify a LUKS key
  --keys-from-stdin    Read passphrases from stdin
  -m|--mount dev[:mnt[:opts[:fstype]]]  Mount dev on mnt (if omitted, /)
  -n|--no-sync         Leave out the last sync
  -N|--new [filename=]type  Create prepared disk (test<N>.img or filename)
  --no-dest-paths      Don't complete paths of the guest
  --pipe-error         Pipe commands can detect write errors
  -r|--ro              Changes are forgotten at the end
  -v|--verbose         Verbose messages
  -V|--version         Display version and exit
  -w|--rw              Changes are written (the default)
  -x                   Echo each command before executing it
"""


def usage(out: Output) -> None:
    out.write(_USAGE)


def describe(known: Command) -> str:
    """A command's page."""
    summary = f"NAME\n    {known.name} - {known.help}\n\nSYNOPSIS\n     {known.usage}\n"
    if len(known.names) > 1:
        summary += f"\n    Other names for this command: {', '.join(known.names[1:])}\n"
    options = [one for one in known.arguments if one.optional]
    if options:
        summary += "\n    Optional arguments, given as NAME:VALUE in any order:\n"
        summary += "".join(f"        {one.name} ({one.type})\n" for one in options)
    return summary + "\n"


def list_commands(out: Output, name: str | None) -> int:
    """``-h`` and ``help``: the page of one command, or the list of all. Returns the exit status."""
    if name:
        known = find(name)
        if known is None:
            out.raw(f"{name}: command not known, use -h to list all commands\n")
            return 1
        out.write(describe(known))
        return 0
    out.write("    Command              Description\n")
    for known in commands():
        out.write(f"    {known.name:<20} {known.help}\n")
    out.write("    Use -h <cmd> / help <cmd> to show detailed help for a command.\n")
    return 0
