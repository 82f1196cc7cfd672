"""Files inside disks beside the real guestfish: what is measured, and how.

The disks hold a file system of 1 GiB with the files of a small system, 1000 small files and one of 100 MB. guestfish
starts a virtual machine for each command, of half a minute and more where it is emulated, so it runs twice and ours as
often as any other case; a ratio is that of the medians.
"""

from __future__ import annotations

import contextlib
import filecmp
import os
import random
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import measure
from cases import GIB, Case, Target

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))

#: at least fifty times as fast as the real one
FIFTY = Target("wall", 0.02)
SIZE = GIB


def _case(name: str, title: str, limit: float, line: str, *, copy: str | None = None, judge: str = "output") -> Case:
    return Case(
        name, title, (Target("seconds", limit), FIFTY), tuple(line.split()), kind="guest", copy=copy, judge=judge
    )


def _cases() -> list[Case]:
    cases = []
    for kind in ("ext4", "xfs"):
        cases += [
            _case(
                f"guest-cat-{kind}", f"guestfish -i cat of a file, {kind} of 1 GiB", 0.25,
                f"--ro -a {{{kind}}} -i cat /etc/hostname",
            ),
            _case(
                f"guest-read-{kind}", f"find and copy-out of 1000 files and one of 100 MB, {kind}", 1.0,
                f"--ro -a {{{kind}}} -m /dev/sda find /data : copy-out /data {{down}}", judge="down",
            ),
        ]  # fmt: skip
    line = "-a {work} -m /dev/sda copy-in {tree} /srv"
    cases.append(_case("guest-copy-in", "copy-in of 1000 files, ext4", 2.0, line, copy="ext4", judge="fsck"))
    return cases


GUEST_CASES = _cases()

_FILES = {
    "etc/hostname": "web1.example\n",
    "etc/fstab": "/dev/sda / auto defaults 0 1\n",
    "etc/passwd": "root:x:0:0:root:/root:/bin/bash\n",
    "etc/debian_version": "12.5\n",
    "etc/os-release": 'ID=debian\nNAME="Debian GNU/Linux"\nPRETTY_NAME="Debian GNU/Linux 12"\nVERSION_ID="12"\n',
    "var/lib/dpkg/status": "".join(
        f"Package: package-{number}\nStatus: install ok installed\nVersion: 1.{number}-1\nArchitecture: amd64\n\n"
        for number in range(400)
    ),
}


class Guests:
    """The disks below ``scratch``; ``links`` is where our guestfish is."""

    def __init__(self, scratch: Path, runs: int, links: Path) -> None:
        self.folder = scratch / "guests"
        self.runs = runs
        self.log = self.folder / "output"
        self.work = self.folder / "work"
        found = shutil.which("guestfish")
        if found is None:
            raise measure.Failed("the real guestfish is what we measure against, and it is not on PATH")
        self.sides = {"ours": str(links / "guestfish"), "theirs": found}
        # without a working /dev/kvm the real one is slower still, but it starts
        os.environ.setdefault("LIBGUESTFS_BACKEND", "direct")
        os.environ.setdefault("LIBGUESTFS_BACKEND_SETTINGS", "force_tcg")
        self.version = subprocess.run([found, "--version"], capture_output=True, text=True).stdout.strip()
        if os.environ["LIBGUESTFS_BACKEND_SETTINGS"] == "force_tcg":
            self.version += ", its machine emulated (TCG)"
        self._make()

    def _make(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        tree = self.folder / "root"
        for name in ("bin", "boot", "etc", "home", "srv", "tmp", "usr/bin", "var/lib/dpkg"):
            (tree / name).mkdir(parents=True)
        for name, text in _FILES.items():
            (tree / name).write_text(text)
        self.tree = tree / "data"
        numbers = random.Random(7)
        for number in range(1000):
            path = self.tree / f"part-{number % 20:02}" / f"file-{number:04}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(numbers.randbytes(numbers.randrange(16384)))
        self.small = self.folder / "small"
        shutil.copytree(self.tree, self.small / "data")
        (self.tree / "large").write_bytes(numbers.randbytes(100_000_000))
        for kind in ("ext4", "xfs"):
            with open(self.folder / kind, "wb") as file:
                file.truncate(SIZE)
        subprocess.run(["mkfs.ext4", "-q", "-F", "-d", tree, self.folder / "ext4"], check=True)
        subprocess.run(["mkfs.xfs", "-q", "-f", self.folder / "xfs"], check=True)
        from guest_images import mounted

        with mounted(self.folder / "xfs", 0, SIZE, self.folder / "mnt") as place:
            subprocess.run(["cp", "-a", f"{tree}/.", place], check=True)

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def once(self, case: Case, side: str) -> measure.Run:
        down = self.folder / "down"
        shutil.rmtree(down, ignore_errors=True)
        down.mkdir()
        if case.copy:
            self.work.unlink(missing_ok=True)
            subprocess.run(["cp", "--sparse=always", self.folder / case.copy, self.work], check=True)
        words = {"{down}": str(down), "{work}": str(self.work), "{tree}": str(self.small / "data")}
        words |= {f"{{{kind}}}": str(self.folder / kind) for kind in ("ext4", "xfs")}
        argv = [self.sides[side], *(words.get(word, word) for word in case.argv)]
        os.sync()
        return measure.run(argv, self.log, case.expect)

    def judge(self, case: Case) -> str:
        """What must be equal for both sides; Failed where what was copied is not what was there."""
        if case.judge == "down":
            _same(self.tree, self.folder / "down" / "data")
        elif case.judge == "fsck":
            done = subprocess.run(["e2fsck", "-fn", self.work], capture_output=True, text=True)
            if done.returncode:
                raise measure.Failed(f"{case.name}: e2fsck: {done.stdout}{done.stderr}")
            from guest_images import mounted

            with mounted(self.work, 0, SIZE, self.folder / "mnt", "-o", "ro") as place:
                _same(self.small / "data", place / "srv" / "data")
        return "\n".join(sorted(self.log.read_text(errors="replace").splitlines()))

    def measure(self, case: Case) -> dict[str, Any]:
        runs: dict[str, list[measure.Run]] = {"ours": [], "theirs": []}
        self.once(case, "ours")
        verdict = self.judge(case)
        for number in range(2):
            runs["theirs"].append(self.once(case, "theirs"))
            if not number and self.judge(case) != verdict:
                raise measure.Failed(f"{case.name}: ours prints something else than guestfish")
            for _ in range((self.runs + 1) // 2):
                runs["ours"].append(self.once(case, "ours"))
        with contextlib.suppress(FileNotFoundError):
            self.work.unlink()

        def middle(side: str, what: str) -> float:
            return float(statistics.median(getattr(run, what) for run in runs[side]))

        figures: dict[str, Any] = {"runs": len(runs["ours"])}
        for name, side in (("our", "ours"), ("their", "theirs")):
            figures |= {f"{name}_{what}": middle(side, what) for what in ("wall", "cpu", "rss")}
        for what in ("wall", "cpu"):
            figures[what] = figures[f"our_{what}"] / max(figures[f"their_{what}"], 1e-9)
        return figures


def _same(one: Path, two: Path) -> None:
    """Raises Failed when the trees are not equal, names and bytes."""
    names = sorted(str(path.relative_to(one)) for path in one.rglob("*"))
    if names != sorted(str(path.relative_to(two)) for path in two.rglob("*")):
        raise measure.Failed(f"{two} has other names than {one}")
    files = [name for name in names if (one / name).is_file()]
    if filecmp.cmpfiles(one, two, files, shallow=False)[0] != files:
        raise measure.Failed(f"{two} has other bytes than {one}")
