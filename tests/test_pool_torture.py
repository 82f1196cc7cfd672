"""Eight processes work on one pool, any of which is killed at any moment; afterwards everything listed is whole."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import judges
from conftest import CI
from cowshed.pool.host import Host

WORKERS = 8
WORKER = Path(__file__).with_name("pool_torture_worker.py")


#: seconds: CI's cut, a laptop's, and the campaign's
LENGTHS = [60.0 if CI else 10.0, pytest.param(600.0, marks=pytest.mark.torture)]


def start(root: Path, log: Path, seed: int, left: float) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(WORKER), str(root), str(seed), str(left), str(log)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("length", LENGTHS)
def test_killed_at_any_moment(tmp_path: Path, figures: Any, length: float) -> None:
    judge = judges.need("qemu-img")
    root, folder = tmp_path / "root", tmp_path / "volumes"
    host = Host(root=str(root))
    pool = host.define(f"<pool type='dir'><name>torture</name><target><path>{folder}</path></target></pool>")
    pool.build()
    pool.start()
    seed = int.from_bytes(os.urandom(4), "big")
    choose = random.Random(seed)
    deadline = time.monotonic() + length
    logs = [tmp_path / f"log{index}" for index in range(WORKERS)]
    running = [start(root, logs[index], choose.randrange(1 << 30), length) for index in range(WORKERS)]
    kills = 0
    try:
        while (left := deadline - time.monotonic()) > 0:
            time.sleep(min(left, choose.uniform(0.0, 0.25)))
            index = choose.randrange(WORKERS)
            worker = running[index]
            # not before it can have begun
            if time.monotonic() + 0.5 > deadline or not logs[index].exists():
                continue
            if choose.random() < 0.6:
                worker.kill()
                kills += worker.wait() == -9
            elif worker.poll() is None:
                continue
            complaints = worker.stderr.read() if worker.stderr else b""
            assert worker.returncode in (-9, 0), (seed, worker.returncode, complaints.decode(), logs[index].read_text())
            running[index] = start(root, logs[index], choose.randrange(1 << 30), deadline - time.monotonic())
    finally:
        for worker in running:
            if worker.poll() is None:
                try:
                    worker.wait(60)
                except subprocess.TimeoutExpired:
                    worker.kill()
                    worker.wait()
    lines = [line for log in logs if log.exists() for line in log.read_text().splitlines()]
    assert not [line for line in lines if line.startswith("UNEXPECTED")], (seed, lines[-50:])
    for worker in running:
        assert worker.returncode == 0, (seed, worker.stderr.read().decode() if worker.stderr else "")

    # whoever comes next sweeps up; then nothing is left of the dead
    pool.refresh()
    assert host.jobs() == []
    assert os.listdir(root / "run/libvirt/storage/cowshed/jobs") == []
    names = [name for name, _ in pool.volume_names()]
    assert sorted(os.listdir(folder)) == sorted(names), seed
    for volume in pool.volumes():
        judge_volume(judge, volume, seed)
    figures.add("pool torture: verbs finished", len(lines))
    figures.add("pool torture: processes killed", kills)
    figures.add("pool torture: volumes judged whole", len(names))
    assert len(lines) > WORKERS


def judge_volume(judge: str, volume: Any, seed: int) -> None:
    """What the real tool says of it agrees with what we say."""
    now = volume.definition
    fmt = now.target.format
    done = subprocess.run(
        [judge, "info", "--output=json", "-f", fmt, volume.path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, (seed, volume, done.stderr)
    facts = json.loads(done.stdout)
    assert facts["virtual-size"] == (now.capacity + 511) // 512 * 512, (seed, volume, facts)
    if fmt == "raw":
        return
    if now.backing is not None and not os.path.exists(now.backing.path):
        raise AssertionError((seed, volume, "has lost its backing file"))
    checked = subprocess.run([judge, "check", "-f", fmt, volume.path], capture_output=True, text=True, check=False)
    # leaks are what a cut resize may leave; errors never
    assert checked.returncode in ((0, 3) if fmt == "qcow2" else (0, 63)), (seed, volume, checked.stdout, checked.stderr)
