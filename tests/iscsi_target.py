"""A real iSCSI target on loopback: tgtd with units that are files, ended by its pid."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import judges

IQN = "iqn.2024-01.org.cowshed:disk"


@contextlib.contextmanager
def free_port() -> Iterator[int]:
    """A port of loopback that nobody else is given meanwhile, and that a server may listen on."""
    with socket.socket() as kept:
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        kept.bind(("127.0.0.1", 0))
        yield int(kept.getsockname()[1])


@contextlib.contextmanager
def free_control() -> Iterator[int]:
    """A number by which tgtadm finds its daemon, and that no other test has at this moment."""
    for number in range(1000 + os.getpid() % 20000, 32000):
        with socket.socket(socket.AF_UNIX) as name:
            try:
                name.bind(f"\0cowshed-tests-tgtd-{number}")
            except OSError:
                continue
            yield number
            return


class Target:
    """``portal`` is "127.0.0.1:PORT"; units are added by number."""

    def __init__(self, portal: str, control: int) -> None:
        self.portal = portal
        self.control = control

    def admin(self, *argv: object) -> str:
        return judges.run("tgtadm", "-C", str(self.control), "--lld", "iscsi", *map(str, argv)).stdout

    def unit(self, lun: int, path: Path, *options: str, params: str = "", tid: int = 1) -> None:
        self.admin("--mode", "logicalunit", "--op", "new", "--tid", tid, "--lun", lun, "-b", path, *options)
        if params:
            self.admin("--mode", "logicalunit", "--op", "update", "--tid", tid, "--lun", lun, "--params", params)

    def target(self, tid: int, name: str) -> None:
        self.admin("--mode", "target", "--op", "new", "--tid", tid, "-T", name)
        self.admin("--mode", "target", "--op", "bind", "--tid", tid, "-I", "ALL")

    def account(self, user: str, password: str, tid: int = 1) -> None:
        self.admin("--mode", "account", "--op", "new", "--user", user, "--password", password)
        self.admin("--mode", "account", "--op", "bind", "--tid", tid, "--user", user)

    def url(self, lun: int, name: str = IQN) -> str:
        return f"iscsi://{self.portal}/{name}/{lun}"


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Target]:
    """A target daemon with one target, IQN, that anyone may use and that has no units yet."""
    daemon = judges.need("tgtd")
    judges.need("tgtadm")
    with free_port() as port, free_control() as control:
        yield from _running(folder, daemon, port, control)


def _running(folder: Path, daemon: str, port: int, control: int) -> Iterator[Target]:
    with open(folder / "tgtd.log", "wb") as log:
        child = subprocess.Popen(
            [daemon, "-f", "-C", str(control), "--iscsi", f"portal=127.0.0.1:{port}"], stdout=log, stderr=log
        )
    try:
        target = Target(f"127.0.0.1:{port}", control)
        for _ in range(1200):
            if child.poll() is not None:
                judges.absent(f"tgtd does not run here: {(folder / 'tgtd.log').read_text()[-300:]}")
            with contextlib.suppress(OSError, AssertionError):
                socket.create_connection(("127.0.0.1", port), 1).close()
                target.target(1, IQN)
                break
            time.sleep(0.05)
        else:
            raise AssertionError("tgtd does not answer")
        yield target
    finally:
        child.kill()
        child.wait()
        for path in (f"socket.{control}", f"socket.{control}.lock"):
            Path("/var/run/tgtd", path).unlink(missing_ok=True)
