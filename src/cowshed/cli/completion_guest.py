"""Completion of guestfish and the virt-* tools for shells: the parts of `completion` that speak of them."""

from __future__ import annotations

import os

from .main import TOOLS as ALL
from .output import Output

#: the tools, guestfish first
TOOLS = tuple(name for name, module in ALL.items() if ".guestfish." in module)

#: what stands for an option's value -> the words; None for files
_VALUES: dict[str, tuple[str, ...] | None] = {
    "-a --add -f --file": None,
    "--blocksize": ("512", "4096"),
    "--format": ("raw", "qcow2", "vmdk", "vdi", "vpc", "vhdx", "luks"),
    "-c --connect": ("qemu:///system", "qemu:///session"),
    "-d --domain -m --mount --key -b --backup -e --expr --xpath": (),
    "--checksum": ("crc", "md5", "sha1", "sha224", "sha256", "sha384", "sha512"),
}


def options(tool: str) -> list[str]:
    """The options of a tool, long and short."""
    if tool == "guestfish":
        from .guestfish.main import OPTIONS

        return [f"--{one.long}" for one in OPTIONS if one.long] + [f"-{one.short}" for one in OPTIONS if one.short]
    front = getattr(__import__(ALL[tool], fromlist=("main",)), "main")  # noqa: B009 - no module's own attribute
    found: list[str] = []
    for which in ("--long-options", "--short-options"):
        # what a tool says itself; it fits into any pipe
        reader, writer = os.pipe()
        try:
            out = Output(tool, stdout=writer)
            front([tool, which], out)
            out.flush()
        finally:
            os.close(writer)
        with open(reader, encoding="utf-8") as file:
            found += file.read().split()
    return found


def commands() -> list[str]:
    """Every name of a command of guestfish."""
    from .guestfish.table import names

    return names()


def _prepared() -> list[str]:
    from .guestfish.prepared import TYPES

    return sorted(TYPES)


def bash() -> list[str]:
    """Lines of the function _cowshed_guest, whose argument is the index of the tool's name, and _cowshed_guest_tool."""
    lines = [
        "_cowshed_guest() {  # $1: the index of the tool's name",
        '    local at=$1 current=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} words="" i first=1',
        "    local tool=${COMP_WORDS[at]##*/}",
        "    if [[ $before == = ]]; then before=${COMP_WORDS[COMP_CWORD-2]}; fi",
        '    if [[ $current == = ]]; then before=${COMP_WORDS[COMP_CWORD-1]}; current=""; fi',
        '    case "$before" in',
        f'    -N|--new) COMPREPLY=($(compgen -W "{" ".join(_prepared())} help" -- "$current")); return;;',
    ]
    for names, words in _VALUES.items():
        # -f and -c say something else to other tools, but nothing that completion could know better
        pattern = "|".join(names.split())
        if words is None:
            lines.append(
                f'    {pattern}) COMPREPLY=($(compgen -f -- "$current")); compopt -o filenames 2>/dev/null; return;;'
            )
        else:
            lines.append(f'    {pattern}) COMPREPLY=($(compgen -W "{" ".join(words)}" -- "$current")); return;;')
    lines += [
        "    -h|--cmd-help|help) if [[ $tool == guestfish ]]; then",
        '        COMPREPLY=($(compgen -W "$(_cowshed_guest_commands)" -- "$current")); return; fi;;',
        "    esac",
        "    if [[ $current == -* ]]; then",
        '        case "$tool" in',
    ]
    lines += [f'        {tool}) words="{" ".join(options(tool))}";;' for tool in TOOLS]
    lines += [
        "        esac",
        '        COMPREPLY=($(compgen -W "$words" -- "$current"))',
        "        return",
        "    fi",
        "    if [[ $tool == guestfish ]]; then",
        "        # a command stands first, and behind each lone colon",
        "        for (( i = at + 1; i < COMP_CWORD; i++ )); do",
        '            case "${COMP_WORDS[i]}" in',
        "            :) first=1;;",
        "            -[acdfmN]|--add|--connect|--domain|--file|--key|--mount|--new) (( i++ ));;",
        "            -*|=) ;;",
        '            *) if [[ ${COMP_WORDS[i-1]} != = ]]; then first=""; fi;;',
        "            esac",
        "        done",
        "        if [[ $first ]]; then",
        '            COMPREPLY=($(compgen -W "$(_cowshed_guest_commands)" -- "$current"))',
        "            return",
        "        fi",
        "    fi",
        '    COMPREPLY=($(compgen -f -- "$current"))',
        "    compopt -o filenames 2>/dev/null",
        "}",
        f'_cowshed_guest_commands() {{ echo "{" ".join(commands())}"; }}',
        "_cowshed_guest_tool() { _cowshed_guest 0; }",
    ]
    return lines


def fish() -> list[str]:
    """Lines for fish."""
    from .guestfish.table import commands as table

    lines = []
    values = {name: words for names, words in _VALUES.items() for name in names.split()}
    for tool in TOOLS:
        for program, where in ((tool, ""), ("cowshed", f" -n '__fish_seen_subcommand_from {tool}'")):
            for name in options(tool):
                text = f"complete -c {program}{where} " + (
                    f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}"
                )
                words = values.get(name, ())
                if words is None:
                    text += " -r -F"
                elif name in values:
                    text += f" -x -a '{' '.join(words)}'" if words else " -x"
                lines.append(text)
    for known in table():
        help = known.help.replace("'", "\\'")
        for name in known.names:
            lines.append(f"complete -c guestfish -n __fish_use_subcommand -f -a {name} -d '{help}'")
    return lines
