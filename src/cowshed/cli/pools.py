"""``cowshed pools``: what a daemon would do of itself, and a look at the work under way."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..pool.host import Host
    from .output import Output

_USAGE = """\
usage: cowshed pools [-c URI] autostart [--force]
       cowshed pools [-c URI] jobs
       cowshed pools [-c URI] cancel JOB
       cowshed pools unit

autostart  start the pools that are marked so: once after the machine came up, with --force at any time
jobs       what runs now, in any process: its id, what it does, how far it is
cancel     ask a job to stop; it removes what it has made
unit       print a systemd unit that runs autostart when the machine comes up

URI is qemu:///system (root's pools), qemu:///session (your own) or cowshed:///?root=DIR.
"""

_UNIT = """\
[Unit]
Description=Start the storage pools that are marked for it
Documentation=man:virsh(1)
Wants=network-online.target
After=network-online.target local-fs.target remote-fs.target iscsi.service
ConditionPathExistsGlob=/etc/libvirt/storage/autostart/*.xml

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart={command} pools -c qemu:///system autostart

[Install]
WantedBy=multi-user.target
"""


def run(argv: list[str], out: Output) -> int:
    """``argv``: what follows ``pools``. Returns the exit status."""
    words = list(argv)
    uri = None
    if words[:1] in (["-c"], ["--connect"]) and len(words) > 1:
        uri = words[1]
        del words[:2]
    if words[:1] in (["-h"], ["--help"]):
        out.write(_USAGE)
        return 0
    if words == ["unit"]:
        out.write(_UNIT.format(command=_command()))
        return 0
    if words not in (["autostart"], ["autostart", "--force"], ["jobs"]) and not (
        len(words) == 2 and words[0] == "cancel" and not words[1].startswith("-")
    ):
        out.raw(_USAGE)
        return 1
    from .virsh.connection import open_host

    host = open_host(uri, words == ["jobs"])
    code = 0
    if words[0] == "autostart":
        code = _autostart(host, out, force=len(words) == 2)
    elif words[0] == "jobs":
        _jobs(host, out)
    else:
        host.claims.cancel(words[1])
        out.write(f"Job {words[1]} was asked to stop\n")
    for line in (*host.recovered, *host.warnings):
        out.warning(line)
    return code


def _autostart(host: Host, out: Output, *, force: bool) -> int:
    code = 0
    for name, error in host.autostart(force):
        if error is None:
            out.write(f"Pool {name} started\n")
        else:
            out.report(error, f"Failed to start pool {name}: ")
            code = 1
    return code


def _jobs(host: Host, out: Output) -> None:
    from .virsh.text import table

    rows = [(job.id, job.kind, job.pool, job.volume, f"{job.fraction:.0%}", str(job.pid)) for job in host.jobs()]
    out.write(table(("Job", "Kind", "Pool", "Volume", "Done", "Process"), rows))


def _command() -> str:
    """This program, as systemd can start it: with its whole path."""
    script = os.path.join(os.path.dirname(sys.executable), "cowshed")
    return script if os.access(script, os.X_OK) else f"{sys.executable} -m cowshed"
