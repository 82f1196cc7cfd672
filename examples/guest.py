"""What is on the disks of many machines: system, packages, and who can log in. Nothing is started, nothing changes.

python examples/guest.py [IMAGE...]      without one, of a small disk that it makes
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import cowshed.guest
from cowshed import CowshedError

#: what guestfish is told to make a disk for this
SMALL = """
disk-create {path} qcow2 200M
add {path}
run
part-disk /dev/sda gpt
mkfs ext4 /dev/sda1
mount /dev/sda1 /
mkdir /etc
mkdir /bin
write /etc/fstab "/dev/sda1 / ext4 defaults 0 1\\n"
write /etc/os-release "ID=debian\\nVERSION_ID=12\\nPRETTY_NAME=Debian\\n"
write /etc/hostname "web1\\n"
write /etc/shadow "root:$6$salt$hash:19700:0:99999:7:::\\nada:!:19700:0:99999:7:::\\n"
"""


def accounts(guest: cowshed.guest.Guest) -> list[str]:
    """The accounts with a password."""
    try:
        lines = (guest.root / "etc/shadow").read_text(errors="surrogateescape").splitlines()
    except FileNotFoundError:
        return []
    rows = [line.split(":") for line in lines]
    return [row[0] for row in rows if len(row) > 1 and row[1] not in ("", "*") and not row[1].startswith("!")]


def report(image: Path) -> None:
    with cowshed.guest.open(image) as guest:
        print(f"{image}: {', '.join(f'{one.name} {one.kind}' for one in guest.filesystems())}")
        for system in guest.inspect():
            packages = system.applications()
            print(f"  {system.product} on {system.device}, host name {system.hostname}, {len(packages)} packages")
            print(f"  passwords: {', '.join(accounts(guest)) or 'none'}")
            keys = [str(path) for path in guest.root.glob("home/*/.ssh/authorized_keys")]
            print(f"  keys: {', '.join(keys) or 'none'}")


def main(images: list[str]) -> int:
    failed = 0
    for image in images:
        try:
            report(Path(image))
        except (CowshedError, OSError) as error:
            print(f"{image}: {error}", file=sys.stderr)
            failed += 1
    return bool(failed)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.exit(main(sys.argv[1:]))
    with tempfile.TemporaryDirectory() as folder:
        disk = f"{folder}/web1.qcow2"
        script = SMALL.format(path=disk)
        subprocess.run([sys.executable, "-m", "cowshed", "guestfish"], input=script, text=True, check=True)
        sys.exit(main([disk]))
