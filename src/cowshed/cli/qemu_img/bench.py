"""``qemu-img bench``: how fast requests to an image go."""

from __future__ import annotations

from ...errors import CowshedError
from ...ops.bench import bench
from .opening import access, reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..output import Output
    from .parsed import Parsed


def run(args: Parsed, out: Output) -> int:
    step = args.step or args.buffer_size

    def announce() -> None:
        out.write(
            f"Sending {args.count} {'write' if args.write else 'read'} requests, {args.buffer_size} bytes each, "
            f"{args.depth} in parallel (starting at offset {args.offset}, step size {step})\n"
        )
        if args.flush_interval:
            out.write(f"Sending flush every {args.flush_interval} requests\n")
        if out.tty:
            out.flush()

    try:
        seconds = bench(
            reference(args, args.filename),
            count=args.count,
            depth=args.depth,
            buffer_size=args.buffer_size,
            step=step,
            offset=args.offset,
            write=args.write,
            pattern=args.pattern,
            flush_interval=args.flush_interval,
            drain=args.drain,
            aio=args.aio or ("native" if args.native_aio else None),
            announce=announce,
            **access(args, out, args.cache),
        )
    except CowshedError as error:
        out.report(error)
        return 1
    out.write(f"Run completed in {seconds:3.3f} seconds.\n")
    return 0
