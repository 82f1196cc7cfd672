"""What ``--help`` and ``--version`` print.

Programs look into these texts to learn what their qemu-img can do, so the command lines, which come from the table, the
order of things and the names of what is described are those of the release whose behaviour is kept. The descriptions
are our own words, as are who made this program and where to report its bugs.
"""

from __future__ import annotations

from . import tables

#: the release of qemu-img whose options, texts and exit codes are kept
RELEASE = "7.2.22"

_COPYRIGHT = "Copyright (c) the cowshed developers; not made or endorsed by the QEMU Project"
_REPORT = """Report bugs of cowshed to those who gave it to you, not to the QEMU project.
More information on the commands at <https://www.qemu.org/docs/master/tools/qemu-img.html>."""

_PARAMETERS = """\
Command parameters:
  'filename' is the image: a path, 'file:PATH' or another protocol's name,
    'json:{...}', or, with --image-opts, a list of its driver's options
  'objectdef' makes an object that other options name by its id, written
    'TYPE,id=ID,NAME=VALUE...'. Images use one type, 'secret', for passwords and
    keys; '--object TYPE,help' lists what a type takes
  'fmt' names an image's format. Left out, the first bytes of the image decide;
    say 'raw' of a raw disk, whose first bytes its guest can choose
  'cache' says how a written image is cached: 'none', 'writeback' (what commands
    other than convert do), 'writethrough', 'directsync' or 'unsafe' (what
    convert does)
  'src_cache' says the same, in the same words, of an image that is only read
  'size' is a number of bytes, or a number and a letter in either case: 'k' for
    KiB (1024 bytes), 'M' for MiB (1024k), 'G' for GiB (1024M), 'T' for TiB
    (1024G), 'P' for PiB (1024T), 'E' for EiB (1024P). 'b' changes nothing
  'output_filename' is the image that convert makes or fills
  'output_fmt' names the format of that image
  'options' are what a format lets you choose, as 'NAME=VALUE,NAME=VALUE'; with
    '-o help' the format given lists its own
  'snapshot_param' picks an internal snapshot: by id or name, as
    'ID_OR_NAME', or by either or both, as
    'snapshot.id=ID,snapshot.name=NAME'
  '-c' compresses the clusters written, where the output format knows compressed
    ones (qcow2 does)
  '-u' leaves the backing file alone. rebase then changes its name and nothing
       else, which is right when the file was moved or the new one has the very
       same content, and need not find either of the two. create then does not
       look whether it is there, and needs a size
  '-h' prints this text, before a command or after it; the formats known stand
       at its end
  '-p' keeps saying how far the work is, in commands that may take long
  '-q' prints errors and nothing else
  '-S' is the size from which on a run of zero bytes in the source becomes a hole
       in the output (4k if not given). With 0 nothing is looked for: zeroes, and
       what the source never allocated, are written like data, and the output
       takes its full size
  '--output' chooses between text for people ('human') and for programs ('json')
  '-n' fills an image that is there already instead of making one

Parameters to bitmap subcommand:
  'bitmap' names the bitmap on which the actions given, '--add', '--remove',
       '--clear', '--enable', '--disable' and '--merge SOURCE', are done from
       left to right
  '-g granularity' is how many bytes of disk each bit of an added bitmap stands for
  '-b source' and '-F src_fmt' name another image, and its format, that has the
       bitmaps to merge from

Parameters to check subcommand:
  '-r' mends what the check finds. '-r leaks' frees clusters that nothing uses,
       and changes no more than that. '-r all' mends the rest too; where metadata
       contradicts itself it has to choose, may choose wrongly, and leaves no
       trace of what was wrong, so keep a copy

Parameters to convert subcommand:
  '--bitmaps' takes along the persistent bitmaps of the topmost layer
  '-m' is the number of requests under way at a time (8 if not given)
  '-W' lets blocks be written as they come instead of from front to back

Parameters to snapshot subcommand:
  'snapshot' is the snapshot's name; '-a' also takes its id
  '-a' takes the disk back to what it was in the snapshot
  '-c' keeps the present state of the disk as a snapshot
  '-d' forgets a snapshot
  '-l' shows which snapshots there are

Parameters to compare subcommand:
  '-f' is the format of the first image
  '-F' is the format of the second image
  '-s' is strict: sizes must be equal, and so must what is allocated

Parameters to dd subcommand:
  'bs=BYTES' is the size of a block (512 if not given)
  'count=N' goes no further than the first N blocks of the input; blocks skipped
       are among them
  'if=FILE' is the image that is copied
  'of=FILE' is the image that is made
  'skip=N' leaves out the first N blocks of the input
"""


def version_text() -> str:
    """The release whose interface is kept, and in brackets, where distributions name their package, who keeps it."""
    return f"qemu-img version {RELEASE} (cowshed {package_version()})\n{_COPYRIGHT}\n"


def package_version() -> str:
    """cowshed's own version."""
    import cowshed

    version: str | None = getattr(cowshed, "__version__", None)
    if version is None:
        from importlib.metadata import version as installed

        version = installed("cowshed")
    return version


def help_text() -> str:
    """The whole help; every command prints the same."""
    lines = [
        f"{version_text()}usage: qemu-img [standard options] command [command options]",
        "Makes, converts, checks and changes virtual disk images",
        "",
    ]
    for row in tables.GLOBAL:
        short, long, text = f"'-{row[0]}',", f"'--{row[1]}'", row[3]
        if row[2]:
            lines.append(f"    {short} {long:<14} {row[2].strip()}")
            lines.append(f"{'':<24} {text}")
        else:
            lines.append(f"    {short} {long:<14} {text}")
    lines += ["", "Command syntax:"]
    lines += [f"  {command} {tables.syntax(command)}" for command in tables.COMMANDS]
    lines += ["", f"{_PARAMETERS}", f"Supported formats: {' '.join(formats())}", "", f"{_REPORT}"]
    return "\n".join(lines) + "\n"


def formats() -> list[str]:
    """The names of the drivers that can open an image, sorted."""
    from ...block import registry

    return sorted(driver.name for driver in registry.drivers() if driver.open)
