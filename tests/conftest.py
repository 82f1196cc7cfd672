"""What all tests share: figures in the closing summary, missing judges named there, torture kept apart."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis.internal.conjecture import providers

import judges

TORTURE = os.environ.get("COWSHED_TORTURE") == "1"
CI = os.environ.get("CI", "").lower() in ("true", "1", "yes")

# `make test` judges a change, so the same change must get the same verdict: fixed examples there, fresh ones in the
# long campaigns. Deadlines measure how busy the machine is, not the code.
_SLOW = [hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.data_too_large]
hypothesis.settings.register_profile(
    "quick", deadline=None, suppress_health_check=_SLOW, print_blob=True, derandomize=True
)
hypothesis.settings.register_profile(
    "torture", deadline=None, suppress_health_check=_SLOW, print_blob=True, max_examples=1000
)
hypothesis.settings.load_profile("torture" if TORTURE else "quick")
if not TORTURE and hasattr(providers, "_get_local_constants"):
    # hypothesis tries the constants of all local modules that are loaded: which those are at some moment is up to the
    # tests that this worker was given before, and fixed examples would not be the same ones
    providers._get_local_constants = lambda: providers._local_constants


class Figures:
    """Numbers that tests report, summed by name over the whole run (and over xdist's workers).

    A test that judges many cases says how many: `figures.add("crash: cut states judged", n)`. The closing
    summary prints `figure: NAME = VALUE` for each, so that a campaign that silently shrank is seen.
    """

    __slots__ = ("_sums",)

    def __init__(self) -> None:
        self._sums: dict[str, int | float] = {}

    def add(self, name: str, value: int | float = 1) -> None:
        self._sums[name] = self._sums.get(name, 0) + value

    def items(self) -> list[tuple[str, int | float]]:
        return sorted(self._sums.items())


_figures = pytest.StashKey[Figures]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_figures] = Figures()
    config.addinivalue_line("markers", "torture: a long campaign; run by `make torture` only")


@pytest.fixture(scope="session")
def figures(request: pytest.FixtureRequest) -> Iterator[Figures]:
    """The run's Figures."""
    yield request.config.stash[_figures]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """xdist's controller takes in what a worker counted; xdist itself reports one that died as failed."""
    for name, value in getattr(node, "workeroutput", {}).get("figures", []):
        node.config.stash[_figures].add(name, value)


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, Any, Any]:
    """What a failed test printed may be no text: xdist, which sends UTF-8 alone, would end the whole run over it."""
    return _sendable((yield))


def _sendable(data: Any) -> Any:
    if isinstance(data, str):
        return data.encode("utf-8", "backslashreplace").decode()
    if isinstance(data, dict):
        return {_sendable(name): _sendable(value) for name, value in data.items()}
    if isinstance(data, (list, tuple)):
        return type(data)(map(_sendable, data))
    return data


def pytest_sessionfinish(session: pytest.Session) -> None:
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["figures"] = session.config.stash[_figures].items()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if TORTURE or "torture" in (config.getoption("-m") or ""):
        return
    long = [item for item in items if item.get_closest_marker("torture")]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if not item.get_closest_marker("torture")]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    figures = config.stash[_figures].items()
    if figures:
        terminalreporter.section("figures")
        for name, value in figures:
            terminalreporter.write_line(f"figure: {name} = {value}")

    missing: dict[str, int] = {}
    for report in terminalreporter.stats.get("skipped", []):
        if isinstance(report.longrepr, tuple) and judges.MISSING in report.longrepr[2]:
            judge = report.longrepr[2].split(judges.MISSING, 1)[1]
            missing[judge] = missing.get(judge, 0) + 1
    if missing:
        terminalreporter.section("NOT JUDGED", sep="!", red=True, bold=True)
        for judge, count in sorted(missing.items()):
            terminalreporter.write_line(f"{count} skipped for want of {judge}", red=True)


@pytest.fixture
def libvirtd(tmp_path: Path) -> Iterator[Any]:
    """A real libvirtd of the test's own."""
    from libvirtd import Libvirtd

    with Libvirtd(tmp_path / "libvirtd") as daemon:
        yield daemon


@pytest.fixture
def ranch(tmp_path: Path, libvirtd: Any, figures: Figures) -> Any:
    """The real virsh on a real libvirtd and ours, side by side (libvirtd.py)."""
    from libvirtd import Ranch

    folder = tmp_path / "ranch"
    folder.mkdir()
    return Ranch(folder, libvirtd, figures)
