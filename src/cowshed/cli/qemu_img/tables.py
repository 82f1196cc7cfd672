"""The one table of qemu-img: its commands, their options and the checks of their arguments, in order.

Parsing, usage text and completion all come from here. A row of an option is

    (short, long, metavar, dest, kind, *arguments of the kind)

``metavar`` is empty for a flag, else the name of the value as usage prints it, with what stands before it
("=fmt" or " fmt"). ``dest`` is the attribute of Parsed; ``kind`` names a converter in converters.py, which runs
while the command line is scanned, so that a mistake in an early option is told before one in a later option.
``checks`` name functions in checks.py, which run in that order when all options are read. ``syntax`` is the usage
line; an option in it stands without its metavar. Long options stand in the order in which ambiguity messages list
them.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Row = tuple[Any, ...]

INT_MAX = 0x7FFFFFFF
INT64_MAX = 0x7FFFFFFFFFFFFFFF
SECTOR = 512
MAX_COROUTINES = 16

_HELP = ("h", "help", "", "", "help")
_OBJECT = ("", "object", " objectdef", "objects", "object")
_IMAGE_OPTS = ("", "image-opts", "", "image_opts", "flag")
_FORCE_SHARE = ("U", "force-share", "", "force_share", "flag")
_FORCE_SHARE_SHORT = ("U", "", "", "force_share", "flag")
_OUTPUT = ("", "output", "=ofmt", "output", "text")
_F = ("f", "", " fmt", "fmt", "text")
_FORMAT = ("f", "format", " fmt", "fmt", "text")
_OUT_FMT = ("O", "", " output_fmt", "out_fmt", "text")
_BACKING_FMT = ("F", "", " backing_fmt", "backing_fmt", "text")
_BACKING = ("b", "", " backing_file", "backing_file", "text")
_OPTIONS = ("o", "", " options", "options", "options")
_CACHE = ("t", "", " cache", "cache", "text")
_SRC_CACHE = ("T", "", " src_cache", "src_cache", "text")
_PROGRESS = ("p", "", "", "progress", "flag")
_QUIET = ("q", "", "", "quiet", "flag")
_UNSAFE = ("u", "", "", "unsafe", "flag")
_SNAPSHOT = ("l", "", " snapshot_param", "snapshot", "snapshot")
_RATE = ("r", "", " rate_limit", "rate_limit", "size", "rate limit")

_TRACE = " [[enable=]<pattern>][,events=<file>][,file=<file>]"

#: Options before the command.
GLOBAL: tuple[Row, ...] = (
    ("h", "help", "", "show this text", "help"),
    ("V", "version", "", "show which version this is", "version"),
    ("T", "trace", _TRACE, "trace what matches a pattern, to a file if one is named", "trace"),
)

#: command -> (module, syntax, options, checks)
COMMANDS: dict[str, tuple[str, str, tuple[Row, ...], tuple[Row, ...]]] = {
    "amend": (
        "cowshed.cli.qemu_img.amend",
        "[--object] [--image-opts] [-p] [-q] [-f] [-t] [--force] -o filename",
        (
            _HELP,
            _F,
            _OPTIONS,
            _CACHE,
            _PROGRESS,
            _QUIET,
            _OBJECT,
            _IMAGE_OPTS,
            ("", "force", "", "force", "flag"),
        ),
        (
            ("options_given",),
            ("quiet_progress",),
            ("progress_begins",),
            ("amend_help",),
            ("one_file_plain",),
            ("cache", "cache", "Invalid cache option"),
            ("exclusive",),
        ),
    ),
    "bench": (
        "cowshed.cli.qemu_img.bench",
        "[-c] [-d] [-f] [--flush-interval] [-i] [-n] [--no-drain] [-o] [--pattern] [-q] [-s] [-S] [-t] [-w] [-U]"
        " filename",
        (
            _HELP,
            ("c", "", " count", "count", "unsigned", "request count", INT_MAX),
            ("d", "", " depth", "depth", "unsigned", "queue depth", INT_MAX),
            _F,
            ("n", "", "", "native_aio", "flag"),
            ("i", "", " aio", "aio", "aio"),
            ("o", "", " offset", "offset", "size", "offset"),
            _QUIET,
            ("s", "", " buffer_size", "buffer_size", "size", "buffer size", INT_MAX),
            ("S", "", " step_size", "step", "size", "step_size", INT_MAX),
            ("t", "", " cache", "cache", "bench_cache"),
            ("w", "", "", "write", "flag"),
            _FORCE_SHARE,
            ("", "flush-interval", "=flush_interval", "flush_interval", "unsigned", "flush interval", INT_MAX),
            _IMAGE_OPTS,
            ("", "pattern", "=pattern", "pattern", "unsigned", "pattern byte", 0xFF),
            ("", "no-drain", "", "drain", "off"),
        ),
        (
            ("one_file",),
            ("bench_flush",),
            ("exclusive",),
        ),
    ),
    "bitmap": (
        "cowshed.cli.qemu_img.bitmap",
        "(--merge | --add | --remove | --clear | --enable | --disable)... [-b [-F]] [-g] [--object]"
        " [--image-opts | -f] filename bitmap",
        (
            _HELP,
            ("f", "", " fmt", "fmt", "text"),
            _OBJECT,
            _IMAGE_OPTS,
            ("", "add", "", "add", "action"),
            ("", "remove", "", "remove", "action"),
            ("", "clear", "", "clear", "action"),
            ("", "enable", "", "enable", "action"),
            ("", "disable", "", "disable", "action"),
            ("", "merge", " SOURCE", "merge", "action"),
            ("g", "granularity", " granularity", "granularity", "size", "granularity"),
            ("b", "source-file", " source_file", "source_file", "text"),
            ("F", "source-format", " source_fmt", "source_fmt", "text"),
        ),
        (
            ("bitmap_actions",),
            ("exclusive",),
        ),
    ),
    "check": (
        "cowshed.cli.qemu_img.check",
        "[--object] [--image-opts] [-q] [-f] [--output] [-r] [-T] [-U] filename",
        (
            _HELP,
            _FORMAT,
            ("r", "repair", " [leaks | all]", "repair", "repair"),
            _OUTPUT,
            _OBJECT,
            _IMAGE_OPTS,
            _FORCE_SHARE,
            _SRC_CACHE,
            _QUIET,
        ),
        (
            ("one_file",),
            ("output",),
            ("cache", "src_cache", "Invalid source cache option"),
            ("exclusive",),
        ),
    ),
    "commit": (
        "cowshed.cli.qemu_img.commit",
        "[--object] [--image-opts] [-q] [-f] [-t] [-b] [-r] [-d] [-p] filename",
        (
            _HELP,
            _F,
            _CACHE,
            ("b", "", " base", "base", "text"),
            ("d", "", "", "drop", "flag"),
            _PROGRESS,
            _QUIET,
            _RATE,
            _OBJECT,
            _IMAGE_OPTS,
        ),
        (
            ("quiet_progress",),
            ("one_file",),
            ("cache", "cache", "Invalid cache option"),
            ("exclusive",),
        ),
    ),
    "compare": (
        "cowshed.cli.qemu_img.compare",
        "[--object] [--image-opts] [-f] [-F] [-T] [-p] [-q] [-s] [-U] filename1 filename2",
        (
            _HELP,
            _F,
            ("F", "", " fmt", "second_fmt", "text"),
            _SRC_CACHE,
            _PROGRESS,
            _QUIET,
            ("s", "", "", "strict", "flag"),
            _OBJECT,
            _IMAGE_OPTS,
            _FORCE_SHARE,
        ),
        (
            ("quiet_progress",),
            ("two_files",),
            ("progress_begins",),
            ("cache", "src_cache", "Invalid source cache option"),
            ("exclusive",),
        ),
    ),
    "convert": (
        "cowshed.cli.qemu_img.convert",
        "[--object] [--image-opts] [--target-image-opts] [--target-is-zero] [--bitmaps] [-U] [-C] [-c] [-p] [-q]"
        " [-n] [-f] [-t] [-T] [-O] [-B [-F]] [-o] [-l] [-S] [-r] [-m] [-W] [--salvage]"
        " filename [filename2 [...]] output_filename",
        (
            _HELP,
            _F,
            _OUT_FMT,
            ("B", "", " backing_file", "backing_file", "text"),
            ("C", "", "", "copy_offload", "flag"),
            ("c", "", "", "compress", "flag"),
            _BACKING_FMT,
            _OPTIONS,
            _SNAPSHOT,
            ("S", "", " sparse_size", "sparse_size", "sparse"),
            _PROGRESS,
            _CACHE,
            _SRC_CACHE,
            _QUIET,
            ("n", "", "", "no_create", "flag"),
            ("m", "", " num_coroutines", "coroutines", "coroutines"),
            ("W", "", "", "in_order", "off"),
            _RATE,
            _OBJECT,
            _IMAGE_OPTS,
            _FORCE_SHARE,
            ("", "target-image-opts", "", "target_image_opts", "flag"),
            ("", "salvage", "", "salvage", "flag"),
            ("", "target-is-zero", "", "target_is_zero", "flag"),
            ("", "bitmaps", "", "bitmaps", "flag"),
            ("", "skip-broken-bitmaps", "", "skip_broken_bitmaps", "flag"),
        ),
        (
            ("convert_modes",),
            ("quiet_progress",),
            ("convert_files",),
            ("cache", "src_cache", "Invalid source cache option"),
            ("exclusive",),
        ),
    ),
    "create": (
        "cowshed.cli.qemu_img.create",
        "[--object] [-q] [-f] [-b [-F]] [-u] [-o] filename [size]",
        (
            _HELP,
            _BACKING_FMT,
            _BACKING,
            _F,
            _OPTIONS,
            _QUIET,
            _UNSAFE,
            _OBJECT,
        ),
        (("create_operands",),),
    ),
    "dd": (
        "cowshed.cli.qemu_img.dd",
        "[--image-opts] [-U] [-f] [-O] [bs=block_size] [count=blocks] [skip=blocks] if=input of=output",
        (
            _HELP,
            _F,
            _OUT_FMT,
            _OBJECT,
            _IMAGE_OPTS,
            _FORCE_SHARE,
        ),
        (
            ("dd_operands",),
            ("exclusive",),
        ),
    ),
    "info": (
        "cowshed.cli.qemu_img.info",
        "[--object] [--image-opts] [-f] [--output] [--backing-chain] [-U] filename",
        (
            _HELP,
            _FORMAT,
            _OUTPUT,
            ("", "backing-chain", "", "backing_chain", "flag"),
            _OBJECT,
            _IMAGE_OPTS,
            _FORCE_SHARE,
        ),
        (
            ("one_file",),
            ("output",),
            ("exclusive",),
        ),
    ),
    "map": (
        "cowshed.cli.qemu_img.map",
        "[--object] [--image-opts] [-f] [--start-offset] [--max-length] [--output] [-U] filename",
        (
            _HELP,
            _FORMAT,
            _OUTPUT,
            _OBJECT,
            _IMAGE_OPTS,
            _FORCE_SHARE,
            ("s", "start-offset", "=offset", "start_offset", "size", "start offset"),
            ("l", "max-length", "=len", "max_length", "size", "max length"),
        ),
        (
            ("one_file",),
            ("output",),
            ("exclusive",),
        ),
    ),
    "measure": (
        "cowshed.cli.qemu_img.measure",
        "[--output] [-O] [-o] [--size | [--object] [--image-opts] [-f] [-l] filename]",
        (
            _HELP,
            _F,
            _OUT_FMT,
            _OPTIONS,
            _SNAPSHOT,
            _IMAGE_OPTS,
            _OBJECT,
            ("", "output", "=ofmt", "output", "output"),
            ("", "size", " N", "size", "size", "image size"),
            _FORCE_SHARE,
        ),
        (
            ("measure_source",),
            ("exclusive",),
        ),
    ),
    "snapshot": (
        "cowshed.cli.qemu_img.snapshot",
        "[--object] [--image-opts] [-U] [-q] [-l | -a | -c | -d] filename",
        (
            _HELP,
            ("l", "", "", "list", "snapshot_action"),
            ("a", "", " snapshot", "apply", "snapshot_action"),
            ("c", "", " snapshot", "create", "snapshot_action"),
            ("d", "", " snapshot", "delete", "snapshot_action"),
            _QUIET,
            _OBJECT,
            _IMAGE_OPTS,
            _FORCE_SHARE,
        ),
        (("one_file",),),
    ),
    "rebase": (
        "cowshed.cli.qemu_img.rebase",
        "[--object] [--image-opts] [-U] [-q] [-f] [-t] [-T] [-p] [-u] -b [-F] filename",
        (
            _HELP,
            _F,
            _BACKING_FMT,
            _BACKING,
            _UNSAFE,
            _PROGRESS,
            _CACHE,
            _SRC_CACHE,
            _QUIET,
            _OBJECT,
            _IMAGE_OPTS,
            _FORCE_SHARE,
        ),
        (
            ("quiet_progress",),
            ("one_file",),
            ("rebase_backing",),
            ("progress_begins", "    (0.00/100%)\r"),
            ("cache", "cache", "Invalid cache option"),
            ("cache", "src_cache", "Invalid source cache option"),
            ("exclusive",),
        ),
    ),
    "resize": (
        "cowshed.cli.qemu_img.resize",
        "[--object] [--image-opts] [-f] [--preallocation] [-q] [--shrink] filename [+ | -]size",
        (
            _HELP,
            _F,
            _QUIET,
            _OBJECT,
            _IMAGE_OPTS,
            ("", "preallocation", "=prealloc", "preallocation", "preallocation"),
            ("", "shrink", "", "shrink", "flag"),
        ),
        (
            ("resize_size",),
            ("exclusive",),
        ),
    ),
}


class Option:
    """One option: a row of the table with names. ``metavar`` is empty for a flag."""

    __slots__ = ("arguments", "dest", "kind", "long", "metavar", "short")

    def __init__(self, row: Row) -> None:
        self.short: str = row[0]
        self.long: str = row[1]
        self.metavar: str = row[2]
        self.dest: str = row[3]
        self.kind: str = row[4]
        self.arguments: Row = row[5:]

    def __repr__(self) -> str:
        return f"<Option -{self.short} --{self.long}>"


def options(command: str) -> tuple[Option, ...]:
    """The options of a command; of ``""`` those that stand before the command."""
    rows = COMMANDS[command][2] if command else GLOBAL
    return tuple([Option(row) for row in rows])


def syntax(command: str) -> str:
    """A command's usage line: its template with the metavars filled in."""
    names = {f"-{option.short}": option.metavar for option in options(command) if option.short}
    names.update((f"--{option.long}", option.metavar) for option in options(command) if option.long)
    words = []
    for word in COMMANDS[command][1].split(" "):
        bare = word.strip("[]()")
        at = word.find(bare) + len(bare)
        words.append(word[:at] + names.get(bare, "") + word[at:])
    return " ".join(words)
