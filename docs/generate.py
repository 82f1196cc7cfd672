"""Writes docs/reference/*.md out of the tables of the package: commands, formats, errors, the Python APIs.

python docs/generate.py            write what has changed
python docs/generate.py --check    change nothing, fail when something is stale (the tests do this)
"""

from __future__ import annotations

import ast
import errno
import inspect
import os
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import words

import cowshed
from cowshed import errors, pool
from cowshed.block import registry
from cowshed.block.options import Option, OptionTable
from cowshed.cli import pools as house
from cowshed.cli.guestfish import table as guestfish_table
from cowshed.cli.qemu_img import tables
from cowshed.cli.virsh import table as virsh_table
from cowshed.cli.virsh.help import describe
from cowshed.ops import access
from cowshed.pool import volume

REFERENCE = Path(__file__).parent / "reference"
NOTE = "<!-- Written by docs/generate.py: change the tables or docs/words.py, not this file. -->"
MIB = 1 << 20
#: kind of an option -> how readers are told
WORD = {"size": "size", "num": "number", "bool": "on, off", "str": "text"}


class Sentences:
    """A table of words that knows which were used, so that none is left over."""

    def __init__(self, name: str, table: dict[str, dict[str, str]]) -> None:
        self.name = name
        self.table = table
        self.left = {(owner, key) for owner, texts in table.items() for key in texts}

    def __call__(self, owner: str, key: str, *, common: bool = False, prefixes: bool = False) -> str:
        """The sentence for ``key`` of ``owner``; ``common``: or that for everybody, under ""."""
        for where in (owner, "") if common else (owner,):
            texts = self.table.get(where, {})
            found = key if key in texts else None
            if found is None and prefixes:
                found = next((name for name in sorted(texts, reverse=True) if key.startswith(name)), None)
            if found is not None:
                self.left.discard((where, found))
                return texts[found]
        raise SystemExit(f"docs/words.py: {self.name} says nothing of {owner} {key}")

    def finish(self) -> None:
        if self.left:
            raise SystemExit(f"docs/words.py: {self.name} speaks of what does not exist: {sorted(self.left)}")


def cell(text: object) -> str:
    return str(text).replace("|", "\\|").replace("\n", " ")


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> list[str]:
    names = list(head)
    lines = [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]
    lines += [f"| {' | '.join(cell(value) for value in row)} |" for row in rows]
    return [*lines, ""]


def paragraph(text: str) -> list[str]:
    return [*textwrap.wrap(text, 118, break_on_hyphens=False, break_long_words=False), ""]


# -- commands ----------------------------------------------------------------------------------------------------------


def commands() -> list[str]:
    say = Sentences("OPTIONS", words.OPTIONS)
    lines = [
        "# qemu-img's commands",
        "",
        NOTE,
        "",
        *paragraph(
            "`cowshed qemu-img COMMAND …`, or `qemu-img COMMAND …` through a link that `cowshed links DIR` has made. "
            "Options and operands may stand in any order, long options may be abbreviated, `--` ends the options. "
            "Sizes are bytes, or a number with one of the letters `k M G T P E` (powers of 1024). The exit status is "
            "0 when all went well and 1 when not, where nothing else is said."
        ),
        *(f"[{name}](#{name})" + (" ·" if name != list(tables.COMMANDS)[-1] else "") for name in tables.COMMANDS),
        "",
    ]
    if set(words.COMMANDS) != set(tables.COMMANDS):
        raise SystemExit(f"docs/words.py: COMMANDS differ: {set(words.COMMANDS) ^ set(tables.COMMANDS)}")
    for command in tables.COMMANDS:
        text, statuses = words.COMMANDS[command]
        syntax = f"{command} {tables.syntax(command)}"
        lines += [f"## {command}", "", text, "", "```text"]
        lines += textwrap.wrap(syntax, 100, subsequent_indent="    ", break_on_hyphens=False, break_long_words=False)
        lines += ["```", ""]
        if statuses:
            lines += [f"Exit status: {statuses}.", ""]
        rows = []
        for option in tables.options(command):
            names = [f"-{option.short}"] if option.short else []
            names += [f"--{option.long}"] if option.long else []
            shown = ", ".join(f"`{name}`" for name in names)
            value = option.metavar.strip(" =")
            rows.append([shown, f"`{value}`" if value else "", say(command, option.dest, common=True)])
        lines += table(("option", "value", ""), rows)
    say.finish()
    return lines


def virsh() -> list[str]:
    order = sorted(virsh_table.GROUPS, key=("pool", "volume", "secret", "host", "virsh").index)
    groups = {keyword: [virsh_table.Command(row) for row in virsh_table.rows(keyword)] for keyword in order}
    lines = [
        "# virsh's commands",
        "",
        NOTE,
        "",
        *paragraph(
            "`cowshed virsh COMMAND …`, or `virsh COMMAND …` through a link that `cowshed links DIR` has made; several "
            "commands with `;` between them in one argument; without a command, a prompt. Names, options, help texts, "
            "what is printed and the exit status (0, or 1 when the last command failed) are virsh 9.0's. Options that "
            "it does not have are marked *cowshed's own*; the help shows them on a terminal, under cowshed's own name "
            "only. What differs beyond that is in [differences from virsh](../differences-virsh.md)."
        ),
        *paragraph(
            "[cowshed pools](#cowshed-pools) starts pools with the machine, and shows and stops long work. `-c URI` "
            "says whose pools: `qemu:///system` (root's, the default for root), `qemu:///session` (the caller's own, "
            "the default for everybody else), `cowshed:///?root=DIR` (those below a directory)."
        ),
    ]
    for commands in groups.values():
        links = [f"[{command.name}](#{command.name})" for command in commands]
        lines += [*(link + " ·" for link in links[:-1]), links[-1], ""]
    for keyword, commands in groups.items():
        lines += [f"## {virsh_table.GROUPS[keyword]}", ""]
        for command in commands:
            lines += virsh_command(command)
    lines += ["## cowshed pools", ""]
    lines += paragraph("What a daemon would do of itself, and a look at the work under way. It is no part of virsh.")
    return [*lines, "```text", *house._USAGE.rstrip("\n").split("\n"), "```", ""]


def virsh_command(command: virsh_table.Command) -> list[str]:
    synopsis = describe(command, ours=True).split("SYNOPSIS\n")[1].split("\n")[0].strip()
    lines = [f"### {command.name}", "", command.summary.removesuffix("."), "", "```text"]
    lines += textwrap.wrap(synopsis, 100, subsequent_indent="    ", break_on_hyphens=False, break_long_words=False)
    lines += ["```", ""]
    rows = []
    for option in command.options:
        if option.kind == "alias":
            rows.append([f"`--{option.name}`", "", f"the same as `--{option.help}`"])
            continue
        value = {"bool": "", "int": "number", "argv": "words"}.get(option.kind, "text")
        said = option.help.replace("<", "\\<") + (" (must be given)" if option.required else "")
        rows.append([f"`--{option.name}`", value, f"{said} *(cowshed's own)*" if option.ours else said])
    return lines + (table(("option", "value", ""), rows) if rows else [])


def guestfish() -> list[str]:
    groups: dict[str, list[guestfish_table.Command]] = {}
    refused = []
    for known in sorted(guestfish_table.commands(), key=lambda known: known.name):
        (refused if known.module == "refused" else groups.setdefault(known.module, [])).append(known)
    lines = [
        "# guestfish's commands",
        "",
        NOTE,
        "",
        *paragraph(
            "`cowshed guestfish`, or `guestfish` through a link that `cowshed links DIR` has made: commands one "
            "a line, or on the command line with `:` between them. `guestfish --help` tells of its options, "
            "`help COMMAND` of a command. What differs from guestfish 1.48 is in "
            "[differences from guestfish](../differences-guestfish.md)."
        ),
    ]
    for module in guestfish_table.MODULES:
        if module not in groups:
            continue
        rows = []
        for known in groups[module]:
            also = f" (also {', '.join(f'`{name}`' for name in known.names[1:])})" if known.names[1:] else ""
            rows.append([f"`{known.usage}`", known.help + also])
        lines += [f"## {words.GUESTFISH.get(module, module.capitalize())}", "", *table(("command", ""), rows)]
    if not set(words.GUESTFISH) <= set(groups):
        raise SystemExit(
            f"docs/words.py: GUESTFISH speaks of what does not exist: {set(words.GUESTFISH) - set(groups)}"
        )
    lines += ["## Refused, with the reason", ""]
    rows = []
    for why in dict.fromkeys(known.help for known in refused):
        group = [known for known in refused if known.help == why]
        names = ", ".join(f"`{name}`" for known in group for name in known.names)
        instead = "; ".join(dict.fromkeys(known.instead for known in group if known.instead))
        rows.append([names, why[1:-1], instead])
    lines += table(("command", "why", "instead"), rows)
    return lines


# -- formats -----------------------------------------------------------------------------------------------------------


def can(action: Callable[[], object]) -> str:
    try:
        action()
    except cowshed.UnsupportedError:
        return ""
    return "yes"


def abilities(name: str, folder: str) -> list[str]:
    """What a new image of a format can do, found by doing it."""
    path = os.path.join(folder, f"disk.{name}")
    cowshed.create(path, name, size=MIB)
    with cowshed.open(path, fmt=name, writable=True) as node:
        found = [
            can(lambda: node.write(0, b"x" * 512)),
            can(node.check),
            can(lambda: node.snapshot_create("s")),
            can(lambda: node.snapshot_delete("s")),
            can(lambda: node.bitmap_add("b")),
            can(lambda: node.bitmap_remove("b")),
            can(lambda: node.resize(2 * MIB)),
            can(lambda: node.resize(MIB)),
        ]
    write, check, snapshot, _, bitmap, _, grow, shrink = found
    return [write, check, snapshot, bitmap, "yes" if grow and shrink else "grow only" if grow else ""]


def option_rows(driver: str, options: OptionTable, say: Sentences) -> Iterator[list[str]]:
    for option in options:
        yield [f"`{option.name}`", kind(option), default(option), say(driver, option.name)]


def kind(option: Option) -> str:
    if option.choices:
        return " ".join(f"`{choice}`" for choice in option.choices)
    return WORD[option.kind]


def default(option: Option) -> str:
    return "" if option.default_text is None else f"`{option.default_text}`"


FILE = next(row for row in registry.drivers() if row.name == "file")


def formats() -> list[str]:
    rows = list(registry.drivers())
    here = [row for row in rows if row.open]
    if {row.name for row in here} != set(words.DRIVERS):
        raise SystemExit(f"docs/words.py: DRIVERS differ: { {row.name for row in here} ^ set(words.DRIVERS) }")
    say, say_open = Sentences("CREATION", words.CREATION), Sentences("OPENING", words.OPENING)
    disks = [row for row in here if row.kind == "format"]
    lines = [
        "# Formats and protocols",
        "",
        NOTE,
        "",
        "A format is a disk in a file, a protocol a place where files are. The columns were filled by trying it out, "
        "but for formats that can't be created here.",
        "",
    ]
    head = ("format", "read", "write", "create", "backing file", "compressed", "check", "snapshots", "bitmaps",
            "resize", "amend", "measure")  # fmt: skip
    done = []
    with tempfile.TemporaryDirectory() as folder:
        for row in disks:
            tried = abilities(row.name, folder) if row.create else words.ABILITIES[row.name]
            write, check, snapshots, bitmaps, resize = tried
            flags = ["yes" if flag else "" for flag in (row.create, row.backing, row.compress)]
            last = ["yes" if flag else "" for flag in (row.amend, row.measure)]
            done.append([f"[{row.name}](#{row.name})", "yes", write, *flags, check, snapshots, bitmaps, resize, *last])
    lines += table(head, done)
    known = [row.name for row in rows if row.kind == "format" and not row.open]
    lines += [f"Recognised, and named in the refusal, but not opened yet: {', '.join(known)}.", ""]
    known = [row.name for row in rows if row.kind != "format" and not row.open]
    lines += [f"Protocols and filters that are known by name only: {', '.join(known)}.", ""]
    for row in here:
        lines += [f"## {row.name}", "", f"{row.kind.capitalize()}: {words.DRIVERS[row.name]}.", ""]
        created, amended = row.table("options"), row.table("amend")
        if created is not None:
            lines += [f"Options of `create -f {row.name} -o …`:" if row.kind == "format" else "When creating:", ""]
            lines += table(("option", "value", "default", ""), option_rows(row.name, created, say))
        if amended is not None:
            lines += ["Options of `amend -o …`:", ""]
            lines += table(("option", "value", "default", ""), option_rows(row.name, amended, say))
        if row.open_options:
            lines += ["Options when opening (`--image-opts`, `json:{…}`, `options=`):", ""]
            if row.open_options == FILE.open_options and row is not FILE:
                lines[-2] = "Options when opening: those of [file](#file)."
                continue
            said: dict[str, list[tuple[str, str]]] = {}
            for text in row.open_options:
                name, _, what = text.partition(":")
                said.setdefault(say_open(row.name, name, prefixes=True), []).append((f"`{name}`", what))
            shown = []
            for sentence, given in said.items():
                kinds = sorted({WORD.get(what, what) for _, what in given})
                shown.append([" ".join(name for name, _ in given), " / ".join(kinds), sentence])
            lines += table(("option", "value", ""), shown)
    say.finish()
    say_open.finish()
    return lines


# -- errors ------------------------------------------------------------------------------------------------------------


def subclasses(cls: type[errors.CowshedError]) -> Iterator[type[errors.CowshedError]]:
    for below in cls.__subclasses__():
        if below.__module__ == errors.__name__:
            yield below
            yield from subclasses(below)


def error_tree() -> list[str]:
    text = inspect.getdoc(errors) or ""
    tree = [line[4:] for line in text.split("\n") if line.startswith("    ")]
    classes = [errors.CowshedError, *subclasses(errors.CowshedError)]
    drawn = [next(word for word in line.split() if word.endswith("Error")) for line in tree]
    if sorted(drawn) != sorted(cls.__name__ for cls in classes):
        raise SystemExit(f"the tree in errors.py is not that of the classes: {drawn}")
    lines = ["# Errors", "", NOTE, "", "```text", *tree, "```", ""]
    names = ", ".join(f"`{name}`" for name in inspect.signature(errors.CowshedError).parameters)
    lines += paragraph(
        "What cowshed raises on purpose is a `CowshedError`. `str(error)` is one line, in the words that scripts know "
        "from qemu-img and virsh; `error.detail` says for people what is known of file, layer, offset, field, value "
        "and limit; `error.hint`, where there is one, says what to do. Attributes, None where they do not apply: "
        f"{names}."
    )
    rows, pools = [], []
    for cls in classes:
        own = cls.errno
        number = "" if own is None else errno.errorcode[own]
        if issubclass(cls, errors.HostError) and own is None:
            number = "the system's"
        if not issubclass(cls, errors.PoolError):
            rows.append([f"`{cls.__name__}`", f"`{cls.__bases__[0].__name__}`", number])
            continue
        if issubclass(cls, errors.HostCallError):
            number = "the system's"
        begins = f"`{cls.prefix.strip()}`" if cls.prefix else ""
        pools.append([f"`{cls.__name__}`", f"`{cls.__bases__[0].__name__}`", cls.code, begins, number])
    lines += table(("error", "is a", "`errno`"), rows)
    lines += ["## Pools, volumes and secrets", ""]
    lines += paragraph(
        "What `cowshed.pool` raises is a `PoolError`: `str(error)` is libvirt's text, which begins as the table says, "
        "and `error.code` libvirt's number (`VIR_ERR_…`), for programs that know it from there. These names are in "
        "`cowshed.errors`."
    )
    return lines + table(("error", "is a", "`code`", "begins", "`errno`"), pools)


# -- the Python API ----------------------------------------------------------------------------------------------------


def source(item: Any) -> ast.FunctionDef | ast.ClassDef:
    node = ast.parse(textwrap.dedent(inspect.getsource(item))).body[0]
    assert isinstance(node, ast.FunctionDef | ast.ClassDef)
    return node


def signature(name: str, node: ast.FunctionDef, *, method: bool = False) -> list[str]:
    """The definition as it is written, one line, or a line for each parameter."""

    def one(argument: ast.arg, value: ast.expr | None = None, stars: str = "") -> str:
        text = stars + argument.arg
        if argument.annotation is not None:
            text += f": {ast.unparse(argument.annotation)}"
        if value is not None:
            text += f" = {ast.unparse(value)}" if argument.annotation is not None else f"={ast.unparse(value)}"
        return text

    given = node.args
    plain = given.args[1:] if method else given.args
    values: list[ast.expr | None] = [None] * (len(plain) - len(given.defaults)) + list(given.defaults)
    parts = [one(argument, value) for argument, value in zip(plain, values, strict=True)]
    if given.vararg is not None:
        parts.append(one(given.vararg, stars="*"))
    elif given.kwonlyargs:
        parts.append("*")
    parts += [one(argument, value) for argument, value in zip(given.kwonlyargs, given.kw_defaults, strict=True)]
    if given.kwarg is not None:
        parts.append(one(given.kwarg, stars="**"))
    end = f") -> {ast.unparse(node.returns)}" if node.returns is not None else ")"
    line = f"{name}({', '.join(parts)}{end}"
    if len(line) <= 100:
        return [line]
    return [f"{name}(", *(f"    {part}," for part in parts), end]


def prose(item: Any) -> list[str]:
    text = (inspect.getdoc(item) or "").replace("``", "`")
    return [*text.split("\n"), ""]


def opening() -> list[str]:
    """The keys of ``access.Access``, which only the type checker sees."""
    tree = ast.parse(inspect.getsource(access))
    found = next(node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name == "Access")
    return [ast.unparse(node.target) for node in found.body if isinstance(node, ast.AnnAssign)]


#: methods whose functions say more
SAID_THERE = {("Pool", "create_volume"), ("Pool", "clone_volume")}


def methods(name: str, cls: Any, *, hidden: Iterable[str] | None = None) -> Iterator[str]:
    """The public methods and properties of a class: those with a docstring, or all but ``hidden`` ones."""
    for node in source(cls).body:
        if not isinstance(node, ast.FunctionDef) or node.name.startswith("_"):
            continue
        if node.name in hidden if hidden is not None else not ast.get_docstring(node):
            continue
        marks = [ast.unparse(mark) for mark in node.decorator_list]
        item = inspect.getattr_static(cls, node.name)
        yield "```text"
        if "property" in marks:
            yield f"{name}.{node.name}{'' if node.returns is None else f': {ast.unparse(node.returns)}'}"
        else:
            yield from signature(f"{name}.{node.name}", node, method="staticmethod" not in marks)
        yield from ("```", "")
        if inspect.getdoc(item):
            yield from prose(getattr(volume, node.name) if (name, node.name) in SAID_THERE else item)


def api() -> list[str]:
    names = cowshed.__all__
    values = {name: getattr(cowshed, name) for name in names}
    verbs = [name for name in names if inspect.isfunction(values[name])]
    things = [name for name in names if inspect.isclass(values[name]) and not issubclass(values[name], Exception)]
    lines = [
        "# The Python API",
        "",
        NOTE,
        "",
        *paragraph(
            "`import cowshed` loads nothing; each name is loaded when it is first used. Offsets and lengths are bytes. "
            "An image is a path, `json:{…}` text, a mapping of options or an open `Node`. `**access` stands for how an "
            f"image that is given by name is opened: {', '.join(f'`{name}`' for name in opening())}; see "
            "[open](#cowshedopen), whose `options` are `open_options` here. What goes wrong is raised as one of the "
            "[errors](errors.md)."
        ),
        "Functions: " + " · ".join(f"[{name}](#cowshed{name})" for name in verbs),
        "",
        "Classes: " + " · ".join(f"[{name}](#class-{name.lower()})" for name in things),
        "",
    ]
    for name in verbs:
        node = source(values[name])
        assert isinstance(node, ast.FunctionDef)
        lines += [f"## cowshed.{name}", "", "```text", *signature(f"cowshed.{name}", node), "```", ""]
        lines += prose(values[name])
    for name in things:
        lines += [f"## class {name}", "", *prose(values[name]), *methods(name, values[name])]
    lines += ["## Kinds of extents", ""]
    kinds = [name for name in names if isinstance(values[name], int)]
    if set(kinds) != set(words.KINDS):
        raise SystemExit(f"docs/words.py: KINDS differ: {kinds}")
    lines += table(("name", ""), [[f"`cowshed.{name}`", words.KINDS[name]] for name in kinds])
    return lines


def attributes(cls: Any) -> Iterator[str]:
    """The constructor of a class that is nothing but its attributes, and those that it does not take."""
    node = next(item for item in source(cls).body if isinstance(item, ast.FunctionDef) and item.name == "__init__")
    given = {argument.arg for argument in node.args.args}
    yield "```text"
    yield from signature(cls.__name__, ast.FunctionDef(node.name, node.args, [], [], None), method=True)
    for item in node.body:
        if not isinstance(item, ast.Assign | ast.AnnAssign):
            continue
        target = item.target if isinstance(item, ast.AnnAssign) else item.targets[0]
        if isinstance(target, ast.Attribute) and target.attr not in given:
            assert item.value is not None
            typed = f": {ast.unparse(item.annotation)}" if isinstance(item, ast.AnnAssign) else ""
            yield f"    .{target.attr}{typed} = {ast.unparse(item.value)}"
    yield from ("```", "")


def pools() -> list[str]:
    lines = [
        "# The Python API of pools",
        "",
        NOTE,
        "",
        *paragraph(
            "`from cowshed import pool`, or `cowshed.pool`. Sizes are bytes. Documents are libvirt's XML, as text or "
            "as the objects at the end of this page. What goes wrong is raised as one of the "
            "[errors](errors.md#pools-volumes-and-secrets). Nothing is kept in these objects but names: what they tell "
            "is true when they are asked, whoever changed it. A `progress` is a [Progress](api.md#class-progress): its "
            "listener hears how far the work is."
        ),
    ]
    values = {name: getattr(pool, name) for name in pool.__all__}
    documents = [name for name in values if hasattr(values[name], "_names")]
    verbs = [name for name in words.POOL_ORDER if name not in documents]
    if set(words.POOL_ORDER) != set(values):
        raise SystemExit(f"docs/words.py: POOL_ORDER differs: {set(words.POOL_ORDER) ^ set(values)}")
    lines += [" · ".join(f"[{name}](#class-{name.lower()})" for name in words.POOL_ORDER), ""]
    for name in verbs:
        hidden = words.POOL_HIDDEN.get(name, ())
        unknown = [item for item in hidden if not hasattr(values[name], item)]
        if unknown:
            raise SystemExit(f"docs/words.py: POOL_HIDDEN: {name} has no {unknown}")
        lines += [f"## class {name}", "", *prose(values[name])]
        if name == "Host":
            lines += ["```text"]
            made = next(item for item in source(pool.Host).body if isinstance(item, ast.FunctionDef))
            lines += [*signature("Host", ast.FunctionDef(made.name, made.args, [], [], None), method=True), "```", ""]
        lines += methods(name, values[name], hidden=hidden)
    for name in (name for name in words.POOL_ORDER if name in documents):
        lines += [f"## class {name}", "", *prose(values[name]), *attributes(values[name])]
    return lines


def guests() -> list[str]:
    from cowshed import guest
    from cowshed.guest.fsspec import GuestFileSystem
    from cowshed.guest.inspect import Application, Root
    from cowshed.guest.name import GuestName

    things = {"Guest": guest.Guest, "GuestPath": guest.GuestPath, "Device": guest.Device, "Root": Root,
              "Application": Application, "GuestFileSystem": GuestFileSystem}  # fmt: skip
    node = source(guest.open)
    assert isinstance(node, ast.FunctionDef)
    lines = [
        "# The Python API of the files inside a disk",
        "",
        NOTE,
        "",
        *paragraph(
            "`import cowshed.guest`. Paths are those of the guest, and have the methods of `pathlib.Path`, by the same "
            "names and with the same errors; each of these errors is a `GuestError`, and so a "
            "[CowshedError](errors.md), too. Where nothing is said of a method, it does what pathlib's does."
        ),
        " · ".join(f"[{name}](#class-{name.lower()})" for name in things),
        "",
        "## cowshed.guest.open",
        "",
        "```text",
        *signature("cowshed.guest.open", node),
        "```",
        "",
        *prose(guest.open),
    ]
    for name, cls in things.items():
        lines += [f"## class {name}", "", *prose(cls)]
        if name == "GuestFileSystem":
            # its methods are fsspec's
            made = next(item for item in source(cls).body if getattr(item, "name", "") == "__init__")
            assert isinstance(made, ast.FunctionDef)
            lines += ["```text", *signature(name, ast.FunctionDef(made.name, made.args, [], [], None), method=True)]
            lines += ["```", ""]
            continue
        if name == "GuestPath":
            lines += methods(name, GuestName, hidden=())
        lines += methods(name, cls, hidden=())
    return lines


PAGES: dict[str, tuple[str, Callable[[], list[str]]]] = {
    "commands.md": ("every command of qemu-img, every option", commands),
    "virsh.md": ("every command of virsh, every option", virsh),
    "formats.md": ("formats and protocols, what they can, their options", formats),
    "errors.md": ("the errors that are raised", error_tree),
    "api.md": ("`import cowshed`: functions, classes, methods", api),
    "pools.md": ("`cowshed.pool`: pools, volumes, secrets", pools),
    "guestfish.md": ("every command of guestfish", guestfish),
    "guest.md": ("`cowshed.guest`: the files inside a disk", guests),
}


def index() -> list[str]:
    lines = ["# Reference", "", NOTE, "", "Written out of the tables that the program itself uses.", ""]
    return [*lines, *(f"- [{name.removesuffix('.md')}]({name}): {text}" for name, (text, _) in PAGES.items()), ""]


def pages() -> dict[str, str]:
    """Every page by its file name."""
    made = {"README.md": index(), **{name: write() for name, (_, write) in PAGES.items()}}
    return {name: "\n".join(lines).rstrip("\n") + "\n" for name, lines in made.items()}


def stale() -> dict[str, str]:
    """The pages that are not as they should be: those to write, and "" for files that don't belong there."""
    wanted = pages()
    found = {path.name: path.read_text() for path in REFERENCE.glob("*")}
    differing = {name: text for name, text in wanted.items() if found.get(name) != text}
    return {**differing, **{name: "" for name in found if name not in wanted}}


if __name__ == "__main__":
    REFERENCE.mkdir(exist_ok=True)
    changed = stale()
    if "--check" in sys.argv[1:]:
        if changed:
            sys.exit(f"stale: {', '.join(sorted(changed))}; run `python docs/generate.py`")
    else:
        for name, text in changed.items():
            if text:
                (REFERENCE / name).write_text(text)
            else:
                (REFERENCE / name).unlink()
            print(f"docs/reference/{name}")
