"""bench/RESULTS.md: the figures, what was required, and what was reached."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

from cases import CASES, Case, Target
from guests import GUEST_CASES
from pools import POOL_CASES

COLUMNS = [
    *("what", "required", "wall", "CPU", "size"),
    *("wall ours", "theirs", "CPU ours", "theirs", "memory ours", "theirs", "runs"),
]


def machine(scratch: Path, theirs: str) -> dict[str, str]:
    def first(path: str, pattern: str) -> str:
        try:
            match = re.search(pattern, Path(path).read_text(), re.M)
        except OSError:
            return "unknown"
        return match[1].strip() if match else "unknown"

    processor = first("/proc/cpuinfo", r"^model name.*: (.*)")
    memory = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30))
    system = first("/etc/os-release", r'^PRETTY_NAME="(.*)"')
    kind = subprocess.run(["stat", "-f", "-c", "%T", scratch], capture_output=True, text=True).stdout.strip()
    version = subprocess.run([theirs, "--version"], capture_output=True, text=True).stdout.splitlines()[0]
    return {
        "processor": f"{processor}, {os.cpu_count()} cores",
        "memory": f"{memory} GiB",
        "system": f"{system}, Linux {platform.release()}",
        "file system": kind,
        "python": platform.python_version(),
        "against": version,
    }


def value(target: Target, figures: dict[str, Any]) -> float | None:
    found = figures.get({"rss": "our_rss", "seconds": "our_wall"}.get(target.what, target.what))
    return None if found is None else float(found)


def reached(target: Target, figures: dict[str, Any]) -> bool:
    found = value(target, figures)
    return found is not None and found <= target.limit


def seconds(number: float | None) -> str:
    if number is None:
        return ""
    return f"{number * 1e3:.1f} ms" if number < 0.1 else f"{number:.2f} s"


def mebibytes(number: float | None) -> str:
    return "" if number is None else f"{number / (1 << 20):.0f} MiB"


def verdicts(case: Case, figures: dict[str, Any]) -> str:
    parts = []
    for target in case.targets:
        found = value(target, figures)
        if reached(target, figures):
            parts.append(f"{target.text()}: yes")
        elif found is None:
            parts.append(f"{target.text()}: not measured")
        elif target.what == "rss":
            parts.append(f"{target.text()}: **no**, {mebibytes(found)}")
        else:
            parts.append(f"{target.text()}: **no**, {found / target.limit - 1:+.0%}")
    return "; ".join(parts)


def report(results: dict[str, Any]) -> str:
    facts, cases = results["machine"], results["cases"]
    lines = [
        "# Measured against qemu-img, virsh and guestfish",
        "",
        "Written by `make bench`. Ratios are ours / theirs, below 1 is faster or less; runs are interleaved",
        "on one machine, and every result is judged by the real tool before it counts. The disk is 2 GiB,",
        "half of it a hole, with an ext4 file system of real files. Seconds and memory (peak resident set)",
        "are medians; what libvirtd and its children take of CPU and memory for virsh is not counted.",
        "",
        *(f"- {name}: {text}" for name, text in facts.items()),
        *([f"- and, for pools and volumes: {results['virsh']}"] if "virsh" in results else []),
        *([f"- and, for the files inside disks: {results['guestfish']}"] if "guestfish" in results else []),
        "",
        f"| {' | '.join(COLUMNS)} |",
        "|---" * len(COLUMNS) + "|",
    ]
    missed = []
    for case in [*CASES, *POOL_CASES, *GUEST_CASES]:
        got = cases.get(case.name)
        if got is None:
            continue
        cells = [
            case.title,
            verdicts(case, got),
            *(_two(got.get(what)) for what in ("wall", "cpu", "size")),
            *(seconds(got.get(what)) for what in ("our_wall", "their_wall", "our_cpu", "their_cpu")),
            *(mebibytes(got.get(what)) for what in ("our_rss", "their_rss")),
            str(got["runs"]),
        ]
        lines.append(f"| {' | '.join(cells)} |")
        if not all(reached(target, got) for target in case.targets):
            missed.append(case)
    absent = [case.title for case in [*CASES, *POOL_CASES, *GUEST_CASES] if case.name not in cases]
    if absent:
        lines += ["", "Not measured: " + "; ".join(absent) + "."]
    if missed:
        lines += ["", "## Not reached", ""]
        for case in missed:
            lines.append(f"- {case.title}: {verdicts(case, cases[case.name])}. {case.bound}".rstrip())
    else:
        lines += ["", "Every requirement measured here is reached."]
    return "\n".join(lines) + "\n"


def _two(number: float | None) -> str:
    return "" if number is None else f"{number:.2f}" if number >= 0.1 else f"{number:.4f}"
