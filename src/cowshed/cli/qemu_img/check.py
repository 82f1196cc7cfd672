"""``qemu-img check``: is an image sound, and with -r, make it so."""

from __future__ import annotations

from ...errors import CowshedError, OpenError, UnsupportedError, error_number, strerror
from ...ops.check import check
from ..progress import Reporter
from .opening import access, reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...block.facts import CheckResult
    from ...ops.check import CheckReport
    from ..output import Output
    from .parsed import Parsed

_STATUS = {"clean": 0, "unknown": 1, "corrupt": 2, "leaks": 3}
_UNSUPPORTED = 63


def run(args: Parsed, out: Output) -> int:
    try:
        with Reporter(out, False, quiet=args.quiet, name="check") as progress:
            report = check(
                reference(args, args.filename),
                args.repair or None,
                progress=progress,
                **access(args, out, args.src_cache),
            )
    except OpenError as error:
        out.report(error)
        return 1
    except UnsupportedError:
        out.error("This image format does not support checks")
        return _UNSUPPORTED
    except CowshedError as error:
        out.error(f"Check failed: {strerror(error_number(error))}")
        return 1
    _show(report, args, out)
    if report.result.error is not None:
        out.error(f"Check failed: {strerror(error_number(report.result.error))}")
    elif report.verdict == "unknown":
        out.error("Check failed")
    return _STATUS[report.verdict]


def _show(report: CheckReport, args: Parsed, out: Output) -> None:
    human = args.output == "human" and not args.quiet
    if report.repaired is not None:
        _messages(report.repaired, out)
        if human:
            out.write(
                "The following inconsistencies were found and repaired:\n\n"
                f"    {report.repaired.leaks_fixed} leaked clusters\n"
                f"    {report.repaired.corruptions_fixed} corruptions\n\n"
                "Double checking the fixed image now...\n"
            )
    _messages(report.result, out)
    if report.result.error is not None:
        return
    if human:
        out.write(_text(report.result))
    elif args.output == "json" and not args.quiet:
        from ...wire.qdict import pretty

        out.write(pretty(report.to_dict(args.filename)) + "\n")


def _messages(result: CheckResult, out: Output) -> None:
    for stream, text in result.messages:
        if stream == "out":
            out.write(text + "\n")
        elif stream == "report":
            out.error(text)
        else:
            out.raw(text + "\n")


def _text(result: CheckResult) -> str:
    parts = []
    if not (result.corruptions or result.leaks or result.check_errors):
        parts.append("No errors were found on the image.\n")
    if result.corruptions:
        parts.append(
            f"\n{result.corruptions} errors were found on the image.\n"
            "Data may be corrupted, or further writes to the image may corrupt it.\n"
        )
    if result.leaks:
        parts.append(
            f"\n{result.leaks} leaked clusters were found on the image.\n"
            "This means waste of disk space, but no harm to data.\n"
        )
    if result.check_errors:
        parts.append(f"\n{result.check_errors} internal errors have occurred during the check.\n")
    allocated = result.allocated_clusters
    if result.total_clusters and allocated:
        parts.append(
            f"{allocated}/{result.total_clusters} = {allocated * 100 / result.total_clusters:.2f}% allocated, "
            f"{result.fragmented_clusters * 100 / allocated:.2f}% fragmented, "
            f"{result.compressed_clusters * 100 / allocated:.2f}% compressed clusters\n"
        )
    if result.image_end_offset:
        parts.append(f"Image end offset: {result.image_end_offset}\n")
    return "".join(parts)
