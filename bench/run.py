"""Measure cowshed against the real qemu-img, virsh and guestfish.

`make bench`, or bench/run.py [--only NAME] [--runs N] [--quick].

Runs are interleaved (ours, theirs, ours, theirs, …) after one warm-up of each that is also judged: what we
wrote is compared and checked by the real tool before any time of it counts. Sources and targets lie on one
file system; targets are deleted between runs. Figures are medians; a ratio is the median over the pairs.

A whole run writes bench/RESULTS.md; `--only` replaces those cases' lines in it; `--quick` writes nothing.
"""

from __future__ import annotations

import argparse
import atexit
import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import measure
from cases import CASES, Case, Images
from guests import GUEST_CASES, Guests
from pools import POOL_CASES, Pools
from report import machine, report, seconds, verdicts

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.json"
REPORT = HERE / "RESULTS.md"
PYTHON = sys.executable

OUR_CALL = """
import sys, time, cowshed
cowshed.info(sys.argv[1])
n = 200
start = time.perf_counter()
for _ in range(n):
    cowshed.info(sys.argv[1])
print((time.perf_counter() - start) / n)
"""

THEIR_CALL = """
import json, subprocess, sys, time
argv = [sys.argv[2], "info", "--output=json", sys.argv[1]]
n = 20
start = time.perf_counter()
for _ in range(n):
    json.loads(subprocess.run(argv, capture_output=True, check=True).stdout)
print((time.perf_counter() - start) / n)
"""


@dataclass(frozen=True)
class Tools:
    """argv prefixes: `ours` behaves as qemu-img, `theirs` is the real one."""

    ours: tuple[str, ...]
    theirs: str


def real_qemu_img() -> str:
    found = shutil.which("qemu-img")
    if found is None or "cowshed" in os.path.realpath(found):
        raise SystemExit("bench: the real qemu-img is what we measure against, and it is not on PATH")
    return found


def our_qemu_img(scratch: Path) -> tuple[str, ...]:
    """The `qemu-img` link that `cowshed links` makes: what a person would have on PATH."""
    links = scratch / "bin"
    shutil.rmtree(links, ignore_errors=True)
    links.mkdir(parents=True)
    command = Path(PYTHON).parent / "cowshed"
    done = subprocess.run([command, "links", links], capture_output=True, text=True)
    link = links / "qemu-img"
    if done.returncode == 0 and link.exists():
        return (str(link),)
    print(f"bench: `cowshed links` made no qemu-img link, running the module: {done.stderr}", file=sys.stderr)
    return (PYTHON, "-m", "cowshed.cli.main", "qemu-img")


class Bench:
    def __init__(self, images: Images, tools: Tools, runs: int) -> None:
        self.images = images
        self.tools = tools
        self.runs = runs
        self.out = images.scratch / "target"
        self.work = images.scratch / "work"
        self.log = images.scratch / "output"
        self.pools: Pools | None = None
        self.guests: Guests | None = None

    def guest(self, case: Case) -> dict[str, Any]:
        if self.guests is None:
            self.guests = Guests(self.images.scratch, self.runs, Path(self.tools.ours[0]).parent)
        return self.guests.measure(case)

    def virsh(self, case: Case) -> dict[str, Any]:
        if self.pools is None:
            self.pools = Pools(self.images.scratch, self.runs, Path(self.tools.ours[0]).parent, self._full)
            self.pools.__enter__()
            atexit.register(self.close)
        return self.figures(*self.pools.pair(case))

    def _full(self) -> Path:
        return self.images.path("raw")

    def close(self) -> None:
        if self.pools is not None:
            self.pools.__exit__()
            self.pools = None
        if self.guests is not None:
            self.guests.close()
            self.guests = None

    def argv(self, case: Case, prefix: tuple[str, ...]) -> list[str]:
        def place(match: re.Match[str]) -> str:
            name = match[1]
            if name in ("out", "work"):
                return str(getattr(self, name))
            return str(self.images.path(name))

        return [*prefix, *(re.sub(r"\{(\w+)\}", place, word) for word in case.argv)]

    def once(self, case: Case, prefix: tuple[str, ...]) -> measure.Run:
        argv = self.argv(case, prefix)
        self.out.unlink(missing_ok=True)
        if case.copy:
            self.work.unlink(missing_ok=True)
            self.images.copy(case.copy, self.work)
        # Nobody pays for writing back what somebody else left behind.
        os.sync()
        return measure.run(argv, self.log, case.expect)

    def judge(self, case: Case, theirs: str) -> str:
        """The real tool's verdict on what was just done (or Failed). Returns what must be equal for both."""
        if case.judge == "compare":
            assert case.source is not None
            argv = ["compare", "-f", Images.formats[case.source], "-F", case.fmt]
            argv += [str(self.images.path(case.source)), str(self.out)]
        elif case.judge == "check":
            argv = ["check", str(self.work)]
        else:
            return self.log.read_text(errors="replace")
        done = subprocess.run([theirs, *argv], capture_output=True, text=True)
        if done.returncode:
            raise measure.Failed(f"{case.name}: qemu-img {' '.join(argv)}: {done.stdout}{done.stderr}")
        return ""

    def pair(self, case: Case) -> dict[str, Any]:
        ours, theirs = self.tools.ours, (self.tools.theirs,)
        verdict: dict[str, str] = {}
        size: dict[str, int] = {}
        for who, prefix in (("ours", ours), ("theirs", theirs)):
            self.once(case, prefix)
            verdict[who] = self.judge(case, self.tools.theirs)
            if self.out.exists():
                size[who] = self.out.stat().st_blocks * 512
        if verdict["ours"] != verdict["theirs"]:
            raise measure.Failed(f"{case.name}: ours prints something else than qemu-img")

        one: list[measure.Run] = []
        two: list[measure.Run] = []
        for _ in range(self.runs * case.repeat):
            one.append(self.once(case, ours))
            two.append(self.once(case, theirs))
        figures = self.figures(one, two)
        if size.get("theirs"):
            figures["size"] = size["ours"] / size["theirs"]
        return figures

    def floor(self, case: Case) -> dict[str, Any]:
        bare = [os.path.realpath(PYTHON), "-I", "-c", "pass"]
        one: list[measure.Run] = []
        two: list[measure.Run] = []
        self.once(case, self.tools.ours)
        mine = self.judge(case, self.tools.theirs)
        self.once(case, (self.tools.theirs,))
        if mine != self.judge(case, self.tools.theirs):
            raise measure.Failed(f"{case.name}: ours prints something else than qemu-img")
        for _ in range(self.runs * case.repeat):
            one.append(self.once(case, self.tools.ours))
            two.append(measure.run(bare, self.log))
        return self.figures(one, two)

    def call(self, case: Case) -> dict[str, Any]:
        image = str(self.images.path("qcow2"))
        one: list[float] = []
        two: list[float] = []
        for _ in range(self.runs):
            for script, into in ((OUR_CALL, one), (THEIR_CALL, two)):
                argv = [PYTHON, "-c", script, image, self.tools.theirs]
                done = subprocess.run(argv, capture_output=True, text=True)
                if done.returncode:
                    raise measure.Failed(f"{case.name}: {done.stderr[-2000:]}")
                into.append(float(done.stdout))
        runs = [[measure.Run(seconds, seconds, 0, 0) for seconds in side] for side in (one, two)]
        figures = self.figures(runs[0], runs[1])
        for what in ("cpu", "our_cpu", "their_cpu", "our_rss", "their_rss"):
            del figures[what]
        return figures

    @staticmethod
    def figures(ours: list[measure.Run], theirs: list[measure.Run]) -> dict[str, Any]:
        return {
            "runs": len(ours),
            "wall": measure.ratio(ours, theirs, "wall"),
            "cpu": measure.ratio(ours, theirs, "cpu"),
            "our_wall": measure.median(ours, "wall"),
            "their_wall": measure.median(theirs, "wall"),
            "our_cpu": measure.median(ours, "cpu"),
            "their_cpu": measure.median(theirs, "cpu"),
            "our_rss": measure.median(ours, "rss"),
            "their_rss": measure.median(theirs, "rss"),
        }

    def measure(self, case: Case) -> dict[str, Any]:
        try:
            how = {
                "command": self.pair, "floor": self.floor, "call": self.call, "virsh": self.virsh, "guest": self.guest,
            }  # fmt: skip
            return how[case.kind](case)
        finally:
            for path in (self.out, self.work, self.log):
                path.unlink(missing_ok=True)


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure cowshed against the real qemu-img.")
    cases = [*CASES, *POOL_CASES, *GUEST_CASES]
    names = [case.name for case in cases]
    parser.add_argument("--only", action="append", metavar="NAME", help="this case; repeatable, see --list")
    parser.add_argument("--list", action="store_true", help="name the cases")
    parser.add_argument("--runs", type=int, default=7, help="measured runs of each (default 7)")
    parser.add_argument("--quick", action="store_true", help="small images, 3 runs, nothing written")
    parser.add_argument("--no-write", action="store_true", help="leave RESULTS.md as it is")
    parser.add_argument("--scratch", type=Path, help="directory for images (kept; default: under /var/tmp)")
    parser.add_argument("--ours", type=Path, help="measure this qemu-img in ours' place; nothing is written")
    args = parser.parse_args()
    if args.list:
        print(*(f"{case.name:16} {case.title}" for case in cases), sep="\n")
        return 0
    unknown = set(args.only or ()) - set(names)
    if unknown:
        parser.error(f"no such case: {', '.join(sorted(unknown))}")

    size = "quick" if args.quick else "full"
    base = args.scratch or Path(os.environ.get("TMPDIR", "/var/tmp")) / "cowshed-bench"
    scratch = base / size
    scratch.mkdir(parents=True, exist_ok=True)
    tools = Tools((str(args.ours),) if args.ours else our_qemu_img(base), real_qemu_img())
    bench = Bench(Images(scratch, tools.theirs, args.quick), tools, 3 if args.quick else max(1, args.runs))

    results: dict[str, Any] = {"cases": {}}
    facts = machine(scratch, tools.theirs)
    if RESULTS.exists() and args.only:
        earlier = json.loads(RESULTS.read_text())
        if earlier.get("machine") == facts:
            results = earlier
    results["machine"] = facts

    failures = 0
    for case in cases:
        if args.only and case.name not in args.only:
            continue
        start = time.monotonic()
        try:
            got = bench.measure(case)
        except measure.Failed as error:
            print(f"{case.name:16} FAILED {error}", flush=True)
            results["cases"].pop(case.name, None)
            failures += 1
            continue
        results["cases"][case.name] = got
        if bench.pools is not None:
            results["virsh"] = bench.pools.version()
        if bench.guests is not None:
            results["guestfish"] = bench.guests.version
        line = f"{case.name:16} wall {got['wall']:5.2f}"
        line += f" cpu {got['cpu']:5.2f}" if "cpu" in got else ""
        line += f" size {got['size']:.3f}" if "size" in got else ""
        line += f"  {seconds(got['our_wall'])} : {seconds(got['their_wall'])}  {verdicts(case, got)}"
        print(f"{line}  [{time.monotonic() - start:.0f} s]", flush=True)
        if not (args.quick or args.no_write or args.ours):
            # after every case: a run that is broken off keeps what it has
            RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
            REPORT.write_text(report(results))

    bench.close()
    if not (args.quick or args.no_write or args.ours):
        print(f"written: {REPORT}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
