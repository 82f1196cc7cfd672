"""What a qemu-img command line says, read and checked: the arguments of every command's ``run``."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    from ...block.secret import Secrets


class Parsed:
    """Arguments of one command. Attributes that a command has no option for keep their default.

    Sizes and offsets are bytes. A cache mode that was not given is None: its default is the command's.
    """

    command: str = ""
    #: the operands, in order
    operands: list[str]

    # images: -f, --format; -O; --image-opts, --target-image-opts, -U; -t, -T
    fmt: str | None = None
    out_fmt: str | None = None
    image_opts: bool = False
    target_image_opts: bool = False
    force_share: bool = False
    cache: str | None = None
    src_cache: str | None = None
    #: --object, as given; every one was checked while the command line was read
    objects: list[str]
    #: id -> type of the objects, and the content of those that are secrets (None when there are none)
    object_ids: dict[str, str]
    secrets: Secrets | None = None
    #: every -o, joined by commas; None without -o
    options: str | None = None

    # output: --output, -p (never together with -q), -q
    output: Literal["human", "json"] = "human"
    progress: bool = False
    #: what a progress line shows when a mistake in the arguments ends it; None while it has not begun
    progress_line: str | None = None
    quiet: bool = False

    # create, rebase, convert: -b or -B, -F, -u, SIZE (also measure --size)
    backing_file: str | None = None
    backing_fmt: str | None = None
    unsafe: bool = False
    size: int | None = None

    # convert, measure: -l NAME-OR-ID, or the parts of -l snapshot.id=ID,snapshot.name=NAME
    snapshot: str | None = None
    snapshot_id: str | None = None
    snapshot_name: str | None = None

    # convert
    copy_offload: bool = False
    compress: bool = False
    #: -S; None when not given (qemu's default is 4096), 0 means a fully allocated target
    sparse_size: int | None = None
    no_create: bool = False
    coroutines: int = 8
    in_order: bool = True
    #: bytes a second, None when not given (also commit); 0 means no limit
    rate_limit: int | None = None
    salvage: bool = False
    target_is_zero: bool = False
    bitmaps: bool = False
    skip_broken_bitmaps: bool = False

    # amend --force, check -r, commit -b and -d, compare -F and -s, info --backing-chain
    force: bool = False
    repair: Literal["", "leaks", "all"] = ""
    base: str | None = None
    drop: bool = False
    second_fmt: str | None = None
    strict: bool = False
    backing_chain: bool = False

    # bench
    count: int = 75000
    depth: int = 64
    native_aio: bool = False
    aio: Literal["threads", "native", "io_uring"] | None = None
    offset: int = 0
    buffer_size: int = 4096
    step: int = 0
    write: bool = False
    flush_interval: int = 0
    pattern: int = 0
    drain: bool = True

    #: bitmap: ("add", "") … ("merge", SOURCE), in the order given
    actions: list[tuple[str, str]]
    granularity: int | None = None
    source_file: str | None = None
    source_fmt: str | None = None

    # dd: if=, of=, bs=, count= (None: all), skip=
    input: str = ""
    target: str = ""
    block_size: int = 512
    blocks: int | None = None
    skip: int = 0

    # map
    start_offset: int = 0
    max_length: int | None = None

    # snapshot: the action ("" when none was given, which lists), and its snapshot
    action: Literal["", "list", "apply", "create", "delete"] = ""
    snapshot_argument: str = ""

    # resize: relative is +1, -1, or 0 when ``size`` is the new size; --preallocation, --shrink
    relative: int = 0
    preallocation: Literal["off", "metadata", "falloc", "full"] = "off"
    shrink: bool = False

    def __init__(self, command: str) -> None:
        self.command = command
        self.operands = []
        self.objects = []
        self.object_ids = {}
        self.actions = []

    @property
    def filename(self) -> str:
        """The first operand."""
        return self.operands[0]

    def __repr__(self) -> str:
        return f"Parsed({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"
