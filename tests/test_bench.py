"""The benchmark harness itself: it measures the child it says, and its report does not flatter."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parent.parent / "bench"


@pytest.fixture(autouse=True)
def on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCH))


def test_run_measures_the_child(tmp_path: Path) -> None:
    import measure

    script = "import time; b = bytearray(64 << 20); end = time.process_time() + 0.2\n"
    script += "while time.process_time() < end: pass\nprint('done')"
    run = measure.run([sys.executable, "-I", "-c", script], tmp_path / "out")
    assert (tmp_path / "out").read_text() == "done\n"
    assert 0.2 <= run.cpu < 10
    assert run.wall >= 0.2
    assert run.rss >= 64 << 20
    idle = measure.run([sys.executable, "-I", "-c", "import time; time.sleep(2)"], tmp_path / "out")
    assert idle.wall >= 2 > idle.cpu
    assert idle.rss < 64 << 20


def test_run_fails_with_the_command(tmp_path: Path) -> None:
    import measure

    argv = [sys.executable, "-I", "-c", "raise SystemExit('no such thing')"]
    with pytest.raises(measure.Failed, match=r"exit 1 .*\nno such thing"):
        measure.run(argv, tmp_path / "out")
    assert measure.run(argv, tmp_path / "out", expect=(1,)).code == 1


def test_ratio_is_over_pairs() -> None:
    import measure

    ours = [measure.Run(wall, wall, 1, 0) for wall in (1.0, 10.0, 2.0)]
    theirs = [measure.Run(wall, wall, 1, 0) for wall in (2.0, 20.0, 1.0)]
    assert measure.ratio(ours, theirs, "wall") == 0.5
    assert measure.median(ours, "wall") == 2.0


def test_report_says_what_was_missed() -> None:
    from cases import CASES
    from report import report

    figures = {"wall": 0.5, "cpu": 0.5, "our_wall": 1.0, "their_wall": 2.0, "our_cpu": 1.0, "their_cpu": 2.0}
    figures |= {"our_rss": 400 << 20, "their_rss": 1 << 20, "runs": 7}
    cases = {case.name: dict(figures) for case in CASES if case.name != "compare"}
    cases["compress-zlib"] |= {"wall": 0.7, "size": 1.01}
    text = report({"machine": {"processor": "one"}, "cases": cases})
    lines = {line.split(" | ")[0].strip("| "): line for line in text.splitlines() if line.startswith("|")}
    assert "wall ≤ 1: yes; cpu ≤ 0.75: yes" in lines["convert raw to raw"]
    assert "wall ≤ 0.35: **no**, +100%; size ≤ 1.02: yes" in lines["convert -c, zlib"]
    assert "memory ≤ 300 MiB: **no**, 400 MiB" in lines["check a fully mapped 1 TiB qcow2"]
    missed = text.partition("## Not reached")[2]
    assert "- convert -c, zlib:" in missed and "- convert raw to raw:" not in missed
    assert "Not measured: compare raw with qcow2, equal; " in text


def test_every_case_can_name_its_images() -> None:
    from cases import CASES, Images

    names = [case.name for case in CASES]
    assert len(names) == len(set(names))
    for case in CASES:
        assert case.targets
        for word in case.argv:
            if word.startswith("{") and word not in ("{out}", "{work}"):
                assert hasattr(Images, f"_make_{word[1:-1]}")
        if case.copy:
            assert "{work}" in case.argv and hasattr(Images, f"_make_{case.copy}")
