"""What help says about each command: what it does beyond its line, what its arguments are, what it prints."""

from __future__ import annotations

from .table import Argument, Command

#: kind of argument -> what it is
_KINDS = {
    "path": "a path in the guest, beginning with /; win:\\… and win:C:\\… are paths of a Windows guest",
    "device": "a device, as list-devices, list-partitions or lvs show it",
    "mountable": "what can be mounted: a device, as list-filesystems shows it",
    "place": "a device, or a path in the guest",
    "string": "a text",
    "bytes": "a text; in double quotes \\n, \\t, \\xHH and \\ooo are characters",
    "int": "a number: decimal, 0x… or 0… (octal); k, M, G, T, P and E multiply by powers of 1024",
    "bool": "true or false",
    "guid": "a GUID, as 01234567-89AB-CDEF-0123-456789ABCDEF",
    "file": "a file of the host",
    "in": "a file of the host to read; - is standard input, -<<END the lines that follow up to END",
    "out": "a file of the host to write; - is standard output",
    "list": "words in one argument, with blanks between them; '…' around one that holds blanks",
    "names": "names in one argument, with blanks between them",
    "words": "any number of words",
}
_RESULTS = {
    "none": "Prints nothing.",
    "int": "Prints a number.",
    "octal": "Prints a number in octal.",
    "hex": "Prints a number in hexadecimal.",
    "bool": "Prints true or false.",
    "string": "Prints a text and a newline.",
    "buffer": "Prints bytes as they are, without a newline at their end.",
    "list": "Prints a line for each.",
    "hash": "Prints lines of a name and a value, with a colon between them.",
    "struct": "Prints a line for each field: its name, a colon, its value.",
    "structs": "Prints a numbered block of fields for each.",
}

#: what the line of help leaves out
_NOTES = {
    "add-drive": (
        "Disks are named /dev/sda, /dev/sdb and so on in the order in which they are added. The image may be of any "
        "format, with backing files; without format: its beginning tells which. Where an untrusted guest could have "
        "written that beginning, give it.",
        "readonly:true keeps all changes apart and forgets them at the end. label: gives the disk the second name "
        "/dev/disk/guestfs/LABEL. blocksize: is 512 or 4096.",
    ),
    "add-drive-ro": ("The image itself is never written: changes are kept apart and forgotten at the end.",),
    "add-drive-scratch": ("An empty disk that is gone at the end.",),
    "alloc": (
        "The file is made, or emptied, with all its space allocated. sparse makes one that takes space when it is "
        "written.",
    ),
    "sparse": ("The file is made, or emptied, and takes space only where it is written. See also alloc.",),
    "case-sensitive-path": (
        "Each name of the path that isn't there as written is looked for without regard to case. The last one need not "
        "be there. A name that fits several files is refused.",
    ),
    "launch": ("Opens the disks that were added. Nearly all commands want this first.",),
    "mount": (
        "One file system is mounted on / before others are below it. What is written goes to the disk at the end of "
        "each command.",
    ),
    "mount-options": (
        "Of the options only ro changes something; those that speak of caches, times or a kernel's driver are taken "
        "as they are.",
    ),
    "copy-in": (
        "The last argument is a directory of the guest; the others are files or directories of the host, which keep "
        "their names, modes, owners and times.",
    ),
    "copy-out": (
        "The last argument is a directory of the host; the others are files or directories of the guest. Nothing is "
        "written outside of that directory, whatever names and links a guest has; device nodes are left out.",
    ),
    "edit": (
        "The text is given to the program that EDITOR names, or to vi. The file keeps its mode, owner and attributes. "
        "When the editor fails, or nothing was changed, the file stays.",
    ),
    "glob": (
        "Every argument with *, ? or [ in it is replaced by the paths of the guest that fit, and the command is run "
        "for each; for several such arguments, for each combination.",
    ),
    "time": ("The command's output comes first, then how long it took.",),
    "lcd": ("Names of files on the host are looked up from there.",),
    "quit": ("So does the end of the input, or Ctrl-D. What was changed is on the disks.",),
    "help": (
        "Without an argument, how to begin. With a command's name, its page. With -l or --list, the list of all "
        "commands.",
    ),
    "reopen": ("All disks are forgotten; begin again with add.",),
    "setenv": ("For programs that are started from here, such as editors and what follows a |.",),
    "hexedit": (
        "hexedit NAME edits a whole file or device, hexedit NAME MAX its first MAX bytes, hexedit NAME START MAX the "
        "MAX bytes from START on, with the program that HEXEDITOR names. The length must stay.",
    ),
    "cryptsetup-open": (
        "The key is one that --key gives for the device, else it is asked for. The clear text is /dev/mapper/NAME "
        "until cryptsetup-close.",
    ),
    "part-init": ("parttype is mbr (msdos) or gpt. What the disk had is gone.",),
    "part-add": (
        "prlogex is p, l or e: primary, logical or extended (gpt has only p). startsect and endsect count sectors, "
        "both included; negative ones count from the end of the disk.",
    ),
    "part-disk": ("parttype is mbr (msdos) or gpt.",),
    "mkfs": ("fstype is one of ext2, ext3, ext4 and vfat (fat).",),
    "inspect-os": (
        "Unmounts everything and looks for systems on all file systems. What is found is kept for the inspect-get- "
        "commands. Prints the device of each system's root.",
    ),
    "list-filesystems": ("Disks, partitions and volumes with what is on them; swap, and unknown where nobody knows.",),
    "ll": ("As ls -la prints it, with numbers for owners.",),
    "checksum": ("csumtype is crc, md5, sha1, sha224, sha256, sha384 or sha512.",),
    "chmod": ("Write the mode with a leading zero: 0644. Without it the number is decimal.",),
    "find": ("Paths are relative to the directory, sorted.",),
    "write-append": ("Makes the file when it isn't there.",),
    "rm-f": ("A file that isn't there is no error.",),
    "rm-rf": ("What isn't there is no error.",),
    "upload": ("A file that is there is replaced: it changes when all of it has arrived, or not at all.",),
    "setxattr": ("vallen is the length of val in bytes.",),
    "available": ("Fails where one of the groups is not available.",),
    "sync": ("Every command does so at its end.",),
}


def describe(known: Command) -> list[str]:
    """The paragraphs of a command's description."""
    parts: list[str] = []
    if known.module == "refused":
        parts.append(f"This command of guestfish is not carried out here: {known.help[1:-1]}.")
        parts += [f"Instead: {known.instead}."] * bool(known.instead)
    else:
        parts.append(f"{known.help[:1].upper()}{known.help[1:]}.")
        parts += _NOTES.get(known.name, ())
        fixed = [one for one in known.arguments if not one.optional]
        options = [one for one in known.arguments if one.optional]
        parts += ["\n".join(_item(one) for one in fixed)] * bool(fixed)
        if options:
            parts.append("Behind these, in any order, each at most once, as NAME:VALUE:")
            parts.append("\n".join(_item(one) for one in options))
        parts.append(_RESULTS[known.result])
        if known.local:
            parts.append("It may stand before run.")
    others = known.names[1:]
    if others:
        shown = " or ".join(f"'{name}'" for name in others)
        parts.append(f"You can use {shown} as an alias for this command.")
    return parts


def _item(argument: Argument) -> str:
    """One argument: its name, and hanging beside it what it is."""
    import textwrap

    name = f"{argument.name}:" if argument.optional else argument.name
    host = argument.type == "string" and argument.name in ("filename", "backingfile")
    text = _KINDS.get("file" if host else argument.type, argument.type)
    lines = textwrap.wrap(text, 74 - 18) if len(name) <= 16 else ["", *textwrap.wrap(text, 74 - 18)]
    first = f"  {name:<16}{lines[0]}".rstrip()
    return "\n".join([first, *(" " * 18 + line for line in lines[1:])])
