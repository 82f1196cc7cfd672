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
_control = iter(range(1000 + os.getpid() % 20000, 32000))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


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
    port, control = free_port(), next(_control)
    with open(folder / "tgtd.log", "wb") as log:
        child = subprocess.Popen(
            [daemon, "-f", "-C", str(control), "--iscsi", f"portal=127.0.0.1:{port}"], stdout=log, stderr=log
        )
    try:
        target = Target(f"127.0.0.1:{port}", control)
        for _ in range(200):
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
        for path in Path("/var/run/tgtd").glob(f"socket.{control}*"):
            path.unlink()
