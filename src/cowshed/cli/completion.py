"""``cowshed completion SHELL``: completion for bash, zsh and fish, out of the tables of options and commands.

The text is for the shell to evaluate: ``source <(cowshed completion bash)``. It completes ``cowshed qemu-img …`` and
``qemu-img …`` alike, and asks no Python when the Tab key is pressed. ``virsh …`` asks virsh, for the names of pools and
volumes are what one wants completed there; so does anything that calls ``virsh complete``, as libvirt's own script.
"""

from __future__ import annotations

from . import completion_guest
from .main import COMMANDS, TOOLS
from .qemu_img import tables
from .qemu_img.converters import AIO_MODES, CACHE_MODES, PREALLOCATION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .output import Output

_USAGE = "usage: cowshed completion bash|zsh|fish"

#: the options before virsh's command go along, so that the pools asked for are those of its connection
_VIRSH = """\
_cowshed_virsh() {  # $1: the index of the word `virsh`
    local at=$1 i word current=${COMP_WORDS[COMP_CWORD]} options=() words=()
    for ((i = at + 1; i <= COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        if (( ${#words[@]} == 0 && i < COMP_CWORD )) && [[ $word == -* ]]; then
            options+=("$word")
            if [[ $word == -[cdekKl] || $word == --@(connect|debug|escape|log) ]] && (( i + 1 < COMP_CWORD )); then
                options+=("${COMP_WORDS[++i]}")
            fi
        else
            words+=("$word")
        fi
    done
    if (( ${#words[@]} == 1 )) && [[ $current == -* ]]; then
        COMPREPLY=($(compgen -W "--connect --debug --help --log --quiet --readonly --timing --version" -- "$current"))
        return
    fi
    COMPREPLY=()
    while IFS= read -r word; do
        COMPREPLY+=("$word")
    # of several, the first line is what they have in common
    done < <("${COMP_WORDS[@]:0:at+1}" -q "${options[@]}" complete -- "${words[@]}" 2>/dev/null | sed '1{$!d}')
}
_cowshed_virsh_tool() { _cowshed_virsh 0; }"""


def run(argv: list[str], out: Output) -> int:
    """``argv``: what follows ``completion``. Returns the exit status."""
    if argv in (["-h"], ["--help"]):
        out.write(f"{_USAGE}\n\nPrints completion for that shell, as in: source <(cowshed completion bash)\n")
        return 0
    if argv == ["bash"]:
        out.write(_bash())
    elif argv == ["zsh"]:
        out.write(f"autoload -U +X bashcompinit && bashcompinit\n{_bash()}")
    elif argv == ["fish"]:
        out.write(_fish())
    else:
        out.error(_USAGE)
        return 1
    return 0


def _formats() -> tuple[str, ...]:
    from ..block import registry

    return tuple(sorted(row.name for row in registry.drivers() if row.open and row.kind == "format"))


def _creation() -> dict[str, tuple[str, ...]]:
    """format -> the names of its creation options."""
    from ..block import registry

    found = {}
    for row in registry.drivers():
        table = row.table("options") if row.open and row.kind == "format" else None
        if table is not None:
            found[row.name] = tuple(sorted(option.name for option in table))
    return found


def choices(option: tables.Option) -> tuple[str, ...] | None:
    """The words that may follow an option; empty for a free text, None for a file name."""
    if option.dest in ("fmt", "out_fmt", "backing_fmt", "second_fmt", "source_fmt"):
        return _formats()
    if option.dest in ("cache", "src_cache"):
        return tuple(mode for mode in CACHE_MODES if mode != "off")
    by_kind = {
        "repair": ("leaks", "all"),
        "aio": AIO_MODES,
        "preallocation": PREALLOCATION,
        "object": ("secret,id=",),
    }
    if option.dest == "output":
        return ("human", "json")
    if option.dest in ("backing_file", "source_file", "base"):
        return None
    return by_kind.get(option.kind, ())


def _spellings(option: tables.Option) -> list[str]:
    return [f"-{option.short}"] * bool(option.short) + [f"--{option.long}"] * bool(option.long)


def _bash() -> str:
    lines = [
        "# Completion of cowshed and qemu-img, made by `cowshed completion`.",
        "_cowshed_qemu_img() {  # $1: the index of the word `qemu-img`",
        '    local at=$1 current=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} words="" i',
        "    local command=${COMP_WORDS[at+1]}",
        "    if (( COMP_CWORD == at + 1 )); then",
        f'        COMPREPLY=($(compgen -W "{" ".join(tables.COMMANDS)} -h --help -V --version" -- "$current"))',
        "        return",
        "    fi",
        "    # --opt=value is three words here",
        "    if [[ $before == = ]]; then before=${COMP_WORDS[COMP_CWORD-2]}; fi",
        '    if [[ $current == = ]]; then before=${COMP_WORDS[COMP_CWORD-1]}; current=""; fi',
        '    case "$command $before" in',
    ]
    for command in tables.COMMANDS:
        for option in tables.options(command):
            if not option.metavar:
                continue
            pattern = "|".join(f"'{command} {word}'" for word in _spellings(option))
            words = choices(option)
            if option.kind == "options" and command != "amend":
                lines += [
                    f"    {pattern})",
                    "        for (( i = at + 2; i < COMP_CWORD; i++ )); do",
                    f"            if [[ ${{COMP_WORDS[i]}} == {'-f' if command == 'create' else '-O'} ]]; then",
                    '                words=$(_cowshed_create_options "${COMP_WORDS[i+1]}")',
                    "            fi",
                    "        done",
                    '        COMPREPLY=($(compgen -S = -W "$words" -- "$current"))',
                    "        compopt -o nospace 2>/dev/null",
                    "        return;;",
                ]
            elif words is None:
                lines.append(f'    {pattern}) COMPREPLY=($(compgen -f -- "$current")); return;;')
            else:
                lines.append(f'    {pattern}) COMPREPLY=($(compgen -W "{" ".join(words)}" -- "$current")); return;;')
    lines += ["    esac", "    if [[ $current == -* ]]; then", '        case "$command" in']
    for command in tables.COMMANDS:
        words = tuple(word for option in tables.options(command) for word in _spellings(option))
        lines.append(f'        {command}) words="{" ".join(words)}";;')
    lines += [
        "        esac",
        '        COMPREPLY=($(compgen -W "$words" -- "$current"))',
        "    else",
        '        COMPREPLY=($(compgen -f -- "$current"))',
        "        compopt -o filenames 2>/dev/null",
        "    fi",
        "}",
        "_cowshed_create_options() {",
        '    case "$1" in',
    ]
    lines += [f'    {fmt}) echo "{" ".join(names)}";;' for fmt, names in _creation().items()]
    lines += [
        "    esac",
        "}",
        "_cowshed_tool() { _cowshed_qemu_img 0; }",
        *_VIRSH.splitlines(),
        *completion_guest.bash(),
        "_cowshed() {",
        "    local current=${COMP_WORDS[COMP_CWORD]}",
        "    if (( COMP_CWORD == 1 )); then",
        f'        COMPREPLY=($(compgen -W "{" ".join((*TOOLS, *COMMANDS))} --help --version" -- "$current"))',
        "    elif [[ ${COMP_WORDS[1]} == qemu-img ]]; then",
        "        _cowshed_qemu_img 1",
        "    elif [[ ${COMP_WORDS[1]} == virsh ]]; then",
        "        _cowshed_virsh 1",
        f"    elif [[ ${{COMP_WORDS[1]}} == @({'|'.join(completion_guest.TOOLS)}) ]]; then",
        "        _cowshed_guest 1",
        "    elif [[ ${COMP_WORDS[1]} == pools ]]; then",
        '        COMPREPLY=($(compgen -W "autostart jobs cancel unit" -- "$current"))',
        "    elif [[ ${COMP_WORDS[1]} == completion ]]; then",
        '        COMPREPLY=($(compgen -W "bash zsh fish" -- "$current"))',
        "    else",
        '        COMPREPLY=($(compgen -f -- "$current"))',
        "        compopt -o filenames 2>/dev/null",
        "    fi",
        "}",
        "complete -F _cowshed cowshed",
        "complete -F _cowshed_tool qemu-img",
        "complete -F _cowshed_virsh_tool virsh",
        f"complete -F _cowshed_guest_tool {' '.join(completion_guest.TOOLS)}",
    ]
    return "\n".join(lines) + "\n"


def _fish() -> str:
    lines = ["# Completion of cowshed and qemu-img, made by `cowshed completion`."]
    top = "complete -c cowshed -n __fish_use_subcommand -x -a"
    lines += [f"{top} {name}" for name in TOOLS]
    lines += [f"{top} {name} -d '{text}'" for name, (_, text) in COMMANDS.items()]
    lines.append("complete -c cowshed -n '__fish_seen_subcommand_from completion' -x -a 'bash zsh fish'")
    seen = "__fish_seen_subcommand_from"
    ask = "virsh -q complete -- (commandline -opc)[2..] (commandline -ct)"
    lines.append(f"complete -c virsh -x -a '({ask} | sed \"1{{\\$!d}}\")'")
    lines += completion_guest.fish()
    lines.append(f"complete -c cowshed -n '{seen} pools' -x -a 'autostart jobs cancel unit'")
    inside_cowshed = f"{seen} qemu-img; and not {seen} {' '.join(tables.COMMANDS)}"
    for program, inside in (("qemu-img", "__fish_use_subcommand"), ("cowshed", inside_cowshed)):
        lines.append(f"complete -c {program} -n '{inside}' -x -a '{' '.join(tables.COMMANDS)}'")
        for command in tables.COMMANDS:
            where = f"{seen} {command}"
            for option in tables.options(command):
                parts = [f"complete -c {program} -n '{where}'"]
                parts += [f"-s {option.short}"] * bool(option.short) + [f"-l {option.long}"] * bool(option.long)
                if option.metavar:
                    words = choices(option)
                    parts.append("-r -F" if words is None else f"-x -a '{' '.join(words)}'" if words else "-x")
                lines.append(" ".join(parts))
    return "\n".join(lines) + "\n"
