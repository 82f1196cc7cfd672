"""guestfish's shell: lines and quotes, arguments, errors and what they end, options, and the tools beside it."""

from __future__ import annotations

import base64
import os
import pty
import select
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

import judges
from cowshed.cli.guestfish.arguments import Refused, number, split_list
from cowshed.cli.guestfish.complete import candidates
from cowshed.cli.guestfish.fish import Fish
from cowshed.cli.guestfish.getopt import Misused, Option, take
from cowshed.cli.guestfish.line import parse
from cowshed.cli.guestfish.printers import PRINTERS
from cowshed.cli.guestfish.table import Argument, commands, find, names
from cowshed.cli.output import Output


def fish(
    *words: str | Path,
    cwd: Path | None = None,
    input: bytes = b"",
    env: dict[str, str] | None = None,
    tool: str = "guestfish",
) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "cowshed", tool, *map(str, words)],
        cwd=cwd, input=input, capture_output=True, env={**os.environ, **(env or {})}, timeout=120, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout.decode(errors="surrogateescape"), done.stderr.decode(errors="surrogateescape")


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A disk with one partition that holds ext4."""
    folder = tmp_path_factory.mktemp("disk")
    source = folder / "source"
    (source / "etc").mkdir(parents=True)
    (source / "etc/hostname").write_text("web1\n")
    (source / "etc/a b").write_text("blank\n")
    (source / "etc/os-release").write_text('ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n')
    (source / "etc/debian_version").write_text("12.5\n")
    (source / "etc/fstab").write_text("/dev/sda1 / ext4 defaults 0 1\n")
    for name in ("bin", "usr", "var/lib/dpkg", "boot", "lib"):
        (source / name).mkdir(parents=True)
    part = folder / "part.img"
    with part.open("wb") as file:
        file.truncate(31 << 20)
    judges.run("mkfs.ext4", "-q", "-F", "-L", "ROOT", "-d", source, part)
    disk = folder / "disk.img"
    with disk.open("wb") as file:
        file.truncate(32 << 20)
        file.seek(1 << 20)
        file.write(part.read_bytes()[: 30 << 20])
    judges.run("mkfs.ext4", "-q", "-F", "-L", "ROOT", "-d", source, "-E", "offset=1048576", disk, "30720k")
    judges.run("sfdisk", "-q", disk, input="label: dos\nstart=2048, size=61440, type=83\n")
    return disk


@pytest.fixture
def copy(disk: Path, tmp_path: Path) -> Path:
    path = tmp_path / "copy.img"
    subprocess.run(["cp", "--sparse=always", disk, path], check=True)
    return path


# ---- lines


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("  cat   /a  ", ["cat", "/a"]), ("", []), ("# comment", []), ("write /a 'b c'", ["write", "/a", "b c"]),
        (r'write /a "x\n\t\"\101\x41\\"', ["write", "/a", 'x\n\t"AA\\']), ("echo a'b c'd", ["echo", "a'b c'd"]),
        ('echo ""', ["echo", ""]), ("echo a#b", ["echo", "a#b"]), ("cat /a | grep x", ["cat", "/a"]),
    ],
)  # fmt: skip
def test_lines_become_words(text: str, words: list[str]) -> None:
    assert parse(text).words == words


def test_signs_before_a_command() -> None:
    assert parse("-rm /a").ignore and parse("- rm /a").words == ["rm", "/a"]
    assert parse("!ls -l | wc").shell == "ls -l | wc" and parse("<! echo run").inline == " echo run"
    assert parse("cat /a | grep 'x y' | wc").pipe == "grep 'x y' | wc"


@pytest.mark.parametrize("text", ['echo "a', "echo 'a", 'echo "a"b', r'echo "\q"', r'echo "\x0"', r'echo "\000"'])
def test_quotes_that_are_wrong_are_refused(text: str) -> None:
    with pytest.raises(Refused):
        parse(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [("10", 10), ("0x1F", 31), ("0777", 0o777), ("777", 777), ("-5", -5), ("1k", 1024), ("1KB", 1000),
     ("2MiB", 2 << 20), ("1G", 1 << 30), ("+3", 3), ("1E", 1 << 60), ("2b", 1024)],
)  # fmt: skip
def test_numbers_are_written_as_in_c_with_sizes(text: str, value: int) -> None:
    known = find("chmod")
    assert known is not None and number(known, Argument("mode:int"), text) == value


@pytest.mark.parametrize(("text", "code"), [("0o777", 2), ("x", 4), ("", 4), ("1q", 2), ("9" * 30, 1), ("08", 2)])
def test_numbers_that_are_none(text: str, code: int) -> None:
    known = find("chmod")
    assert known is not None
    with pytest.raises(Refused, match=f"xstrtoll returned {code}"):
        number(known, Argument("mode:int"), text)


def test_lists_are_one_argument() -> None:
    assert split_list("a 'b c'  d \"e f\" ''") == ["a", "b c", "d", "e f", ""]


def test_options_as_getopt_has_them() -> None:
    options = (Option("add", "a", True), Option("ro", "r"), Option("rw", "w"), Option("format", "", None))
    assert take(options, ["-ra", "x", "--format", "--add=y", "--", "-w"]) == (
        [("ro", None), ("add", "x"), ("format", None), ("add", "y")], ["-w"],
    )  # fmt: skip
    for words in (["-z"], ["--nope"], ["--r"], ["-a"], ["--ro=1"]):
        with pytest.raises(Misused):
            take(options, words)


def test_every_command_is_whole() -> None:
    import inspect

    kinds = {
        "path", "device", "mountable", "place", "string", "bytes", "int", "int64", "bool", "guid", "in", "out", "list",
        "names", "words",
    }  # fmt: skip
    found = list(commands())
    assert len(found) >= 300
    for known in found:
        assert known.result in PRINTERS and known.help
        takes = list(inspect.signature(known.handler).parameters)[1:]
        assert len(takes) == len(known.arguments), known.name
        for argument, name in zip(known.arguments, takes, strict=True):
            assert argument.type in kinds, (known.name, argument.type)
            assert not argument.optional or argument.keyword == name, known.name


# ---- running


def test_a_first_look(disk: Path) -> None:
    code, out, err = fish(
        "--ro", "-a", disk, "run", ":", "list-filesystems", ":", "mount", "/dev/sda1", "/", ":", "cat", "/etc/hostname"
    )
    assert (code, out, err) == (0, "/dev/sda1: ext4\nweb1\n\n", "")
    code, out, err = fish(
        "--ro", "-a", disk, "-m", "/dev/sda1", "--", "ls", "/etc", ":", "-cat", "/nope", ":", "is-dir", "/etc"
    )
    assert (code, out) == (0, "a b\ndebian_version\nfstab\nhostname\nos-release\ntrue\n")
    assert err == "*stdin*:0: libguestfs: error: download: /nope: No such file or directory\n"


def test_an_error_ends_a_script_and_says_where(disk: Path, tmp_path: Path) -> None:
    (tmp_path / "s.gf").write_text("run\nmount /dev/sda1 /\n# nothing\n-cat /no\ncat /nope\ncat /etc/hostname\n")
    code, out, err = fish("--ro", "-a", disk, "-f", tmp_path / "s.gf")
    assert (code, out) == (1, "")
    assert err == "".join(
        f"{tmp_path}/s.gf:{line}: libguestfs: error: download: {path}: No such file or directory\n"
        for line, path in ((4, "/no"), (5, "/nope"))
    )


def test_mistakes_in_the_command_line(disk: Path) -> None:
    usage = "error: incorrect number of arguments\nusage: cat path\ntype 'help cat' for more help on cat\n"
    assert fish("--ro", "-a", disk, "run", ":", "cat") == (1, "", usage)
    code, _, err = fish("nosuch")
    assert code == 1 and err.startswith("nosuch: unknown command\nDid you mean to open a disk image?")
    code, _, err = fish("-a", "/nope.img", "run")
    assert code == 1 and err == "guestfish: access: /nope.img: No such file or directory\n"
    assert fish("list-devices")[0] == 1 and fish("--nope")[0] == 1 and fish("run")[0] == 1
    assert fish("--version") == (0, "guestfish 1.48.6\n", "")
    assert fish("help", "cat")[1].startswith("NAME\n    cat - list the contents of a file\n\nSYNOPSIS\n     cat path\n")


def test_scripts_on_standard_input_have_pipes_and_here_documents(copy: Path) -> None:
    script = (
        "run\nmount /dev/sda1 /\nupload -<<END /etc/new\none\ntwo\nEND\ncat /etc/new | tr a-z A-Z\n!echo host\n"
        "<! echo echo inline\nglob rm-f /etc/n*\nexists /etc/new\ntime echo t | sed s/[0-9.]*.seconds/S/\n"
        "write '/etc/x y' \"a\\nb\"\ncat '/etc/x y'\necho -n | cat -\n"
    )
    code, out, err = fish("-a", copy, input=script.encode())
    assert (code, err) == (0, "")
    assert out == "ONE\nTWO\n\nhost\ninline\nfalse\nt\nelapsed time: S\na\nb\n-n\n"


def test_an_edit_keeps_what_the_file_has(copy: Path) -> None:
    words = ["-a", copy, "-m", "/dev/sda1"]
    fish(*words, "chmod", "0640", "/etc/hostname", ":", "lsetxattr", "security.selinux", "ctx", "3", "/etc/hostname")
    code, _, err = fish(*words, "edit", "/etc/hostname", env={"EDITOR": "sed -i s/web1/db1/"})
    assert (code, err) == (0, "")
    _, out, _ = fish(
        "--ro",
        *words,
        "cat",
        "/etc/hostname",
        ":",
        "getxattr",
        "/etc/hostname",
        "security.selinux",
        ":",
        "ll",
        "/etc/hostname",
    )
    assert out.startswith("db1\n\nctx") and "-rw-r-----. 1 0 0 4 " in out
    before = copy.read_bytes()
    assert fish(*words, "edit", "/etc/hostname", env={"EDITOR": "false"})[0] == 1
    assert fish("--ro", *words, "write", "/etc/hostname", "lost")[0] == 1
    script = ["run", ":", "mount", "/dev/sda1", "/", ":", "write", "/etc/hostname", "lost", ":", "cat", "/etc/hostname"]
    assert fish("--ro", "-a", copy, *script) == (0, "lost\n", "") and copy.read_bytes() == before
    assert fish(*words, "umount-all")[0] == 0


def test_a_file_is_the_same_by_another_mount_of_its_file_system(copy: Path) -> None:
    mounted = ["-a", copy, "-m", "/dev/sda1", "--", "mkdir-p", "/again", ":", "mount", "/dev/sda1", "/again", ":"]
    for command in ("mv", "cp", "cp-a"):
        for one, other in (("/etc/hostname", "/again/etc/hostname"), ("/again/etc/hostname", "/etc/hostname")):
            code, out, err = fish(*mounted, command, one, other)
            assert (code, out) == (1, "") and "are the same file" in err, err
    code, out, err = fish(*mounted, "rmdir", "/again/again")
    assert code == 1 and "busy" in err
    assert fish("--ro", "-a", copy, "-m", "/dev/sda1", "--", "cat", "/etc/hostname")[:2] == (0, "web1\n\n")


def test_xfs_is_edited_where_its_blocks_are_and_refuses_the_rest(tmp_path: Path) -> None:
    (tmp_path / "ifcfg").write_text("ONBOOT=no\n")
    (tmp_path / "proto").write_text(f"/dummy\n0 0\nd--755 0 0\nifcfg ---640 7 8 {tmp_path}/ifcfg\n$\n$\n")
    disk = tmp_path / "xfs.img"
    with disk.open("wb") as file:
        file.truncate(310 << 20)
    judges.run("mkfs.xfs", "-q", "-p", tmp_path / "proto", disk)
    words = ["-a", disk, "-m", "/dev/sda"]
    assert fish(*words, "edit", "/ifcfg", env={"EDITOR": "sed -i s/no/yes/"}) == (0, "", "")
    code, out, _ = fish("--ro", *words, "cat", "/ifcfg", ":", "ll", "/ifcfg")
    assert code == 0 and out.startswith("ONBOOT=yes\n\n-rw-r----- 1 7 8 11 ")
    code, _, err = fish(*words, "mkdir", "/d")
    assert code == 1 and "Operation not supported (" in err and "xfs" in err
    code, _, err = fish(*words, "edit", "/ifcfg", env={"EDITOR": "sh -c 'seq 9999 > $0'"})
    assert code == 1 and "don't fit" in err
    judges.run("xfs_repair", "-n", disk)


def test_partition_tables_are_made_and_changed(tmp_path: Path) -> None:
    disk = tmp_path / "new.img"
    lines = (
        f"sparse {disk} 64M", "run", "part-init /dev/sda gpt", "part-add /dev/sda p 2048 20479",
        "part-add /dev/sda p 20480 -100", "part-set-name /dev/sda 2 data", "part-set-bootable /dev/sda 1 true",
        "part-get-name /dev/sda 2", "list-partitions", "part-get-bootable /dev/sda 1", "part-del /dev/sda 2",
        "part-resize /dev/sda 1 24575", "-part-resize /dev/sda 1 10239", "part-list /dev/sda",
        "mkswap /dev/sda1 label:SW", "list-filesystems",
        "vfs-label /dev/sda1",
    )  # fmt: skip
    code, out, err = fish(input="\n".join(lines).encode())
    assert code == 0 and "Shrinking a partition can cause data loss" in err and err.count("\n") == 1
    assert out == (
        "data\n/dev/sda1\n/dev/sda2\ntrue\n[0] = {\n  part_num: 1\n  part_start: 1048576\n  part_end: 12582911\n"
        "  part_size: 11534336\n}\n/dev/sda1: swap\nSW\n"
    )
    told = judges.run("sfdisk", "--json", disk).stdout
    assert '"label": "gpt"' in told and told.count('"node"') == 1
    assert (
        judges.run("blkid", "-p", "-O", "1048576", "-S", "4194304", "-o", "value", "-s", "LABEL", disk).stdout == "SW\n"
    )


def test_a_prepared_disk(tmp_path: Path) -> None:
    code, out, err = fish(
        "-N", "mine.img=part:20M:gpt", "part-get-parttype", "/dev/sda", ":", "list-partitions", cwd=tmp_path
    )
    assert (code, out, err) == (0, "gpt\n/dev/sda1\n", "") and (tmp_path / "mine.img").stat().st_size == 20 << 20
    assert fish("-N", "nosuch", cwd=tmp_path)[0] == 1


def test_the_system_is_found_and_mounted(disk: Path) -> None:
    code, out, err = fish("--ro", "-a", disk, "-i", "mountpoints", ":", "inspect-get-distro", "/dev/sda1")
    assert (code, out, err) == (0, "/dev/sda1: /\ndebian\n", "")


def test_what_needs_a_kernel_says_so(disk: Path) -> None:
    code, _, err = fish("--ro", "-a", disk, "-i", "command", "ls")
    assert code == 1 and "libguestfs: error: command: needs a running guest kernel" in err and "instead: " in err


def test_what_is_refused_says_why_and_what_else_to_do(disk: Path) -> None:
    for name, reason in {
        "btrfs-subvolume-list": "btrfs is known by its name",
        "btrfs_filesystem_balance": "btrfs is known by its name",
        "mke2journal-L": "journals on a device of their own",
        "sfdiskM": "part-add",
        "aug-init": "edit",
        "selinux-relabel": "/.autorelabel",
    }.items():
        # before run too, whatever its arguments, as a page and in the list
        for words in ((name,), ("run", ":", name, "1", "2")):
            code, out, err = fish("--ro", "-a", disk, *words)
            assert (code, out) == (1, "") and reason in err and "unknown" not in err
        code, out, _ = fish("-h", name)
        assert code == 0 and "is not carried out here" in out


def test_the_label_of_xfs(tmp_path: Path) -> None:
    disk = tmp_path / "x.img"
    with disk.open("wb") as file:
        file.truncate(300 << 20)
    judges.run("mkfs.xfs", "-q", "-L", "before", disk)

    def admin(*words: str) -> tuple[int, str]:
        code, _, err = fish("-a", disk, "run", ":", "xfs-admin", "/dev/sda", *words)
        return code, err

    assert admin("label:after", "extunwritten:true", "v2log:true", "projid32bit:true", "lazycounter:true") == (0, "")
    assert judges.run("xfs_admin", "-l", disk).stdout.strip() == 'label = "after"'
    assert admin("label:--") == (0, "") and judges.run("xfs_admin", "-l", disk).stdout.strip() == 'label = ""'
    assert "limited to 12 bytes" in admin("label:0123456789012")[1]
    for words, reason in {
        ("uuid:generate",): "xfs_admin -U",
        ("uuid:01234567-0123-0123-0123-012345678902", "label:no"): "xfs_admin -U",
    }.items():
        code, err = admin(*words)
        assert code == 1 and reason in err
    judges.run("xfs_repair", "-n", disk)
    assert judges.run("xfs_admin", "-l", disk).stdout.strip() == 'label = ""'
    size = fish("-a", disk, "run", ":", "mount", "/dev/sda", "/", ":", "vfs-minimum-size", "/dev/sda")
    assert size == (0, f"{300 << 20}\n", "")
    code, _, err = fish("-a", disk, "run", ":", "mount", "/dev/sda", "/", ":", "xfs-admin", "/dev/sda", "label:x")
    assert code == 1 and "contains a mounted filesystem" in err


def test_a_swap_file_and_lost_and_found(copy: Path) -> None:
    lines = "fallocate /sw 81920 : mkswap-file /sw : mkdir /d : mklost-and-found /d : fill-dir /d 12 : ls /d : file /sw"
    code, out, err = fish("-a", copy, "-i", *lines.split())
    names = [*(f"{number:08d}" for number in range(12)), "lost+found"]
    assert (code, err) == (0, "") and out.splitlines()[:-1] == names and "wap" in out
    judges.run("e2fsck", "-fn", f"{copy}?offset=1048576")
    # as mkswap has it
    other = copy.parent / "sw"
    assert fish("--ro", "-a", copy, "-i", "download", "/sw", str(other))[0] == 0
    ours = other.read_bytes()
    uuid = ours[1036:1052].hex()
    uuid = "-".join((uuid[:8], uuid[8:12], uuid[12:16], uuid[16:20], uuid[20:]))
    other.write_bytes(bytes(81920))
    judges.run("mkswap", "-q", "-U", uuid, other)
    assert other.read_bytes() == ours


def test_the_disks_of_a_domain_are_added_by_a_command(copy: Path, tmp_path: Path) -> None:
    rest = tmp_path / "rest.img"
    rest.write_bytes(bytes(1 << 20))
    document = tmp_path / "web.xml"
    disks = "".join(
        f"<disk type='file' device='disk'><driver type='raw'/><source file='{path}'/><target dev='{dev}'/>{more}</disk>"
        for path, dev, more in ((copy, "vda", ""), (rest, "vdb", "<readonly/>"))
    )
    document.write_text(f"<domain type='kvm'><name>webx</name><devices>{disks}</devices></domain>")
    told = fish("add-domain", document, ":", "debug-drives")
    assert told == (0, f"2\n{copy} format=raw protocol=file\n{rest} format=raw protocol=file\n", "")
    told = fish("domain", document, "readonlydisk:read", ":", "debug-drives")
    assert told == (0, f"2\n{copy} format=raw protocol=file\n{rest} readonly format=raw protocol=file\n", "")
    assert fish("add-domain", document, "readonlydisk:ignore", "readonly:true")[1] == "1\n"
    for words, reason in {
        (document, "readonlydisk:error"): "marked <readonly/>",
        (document, "readonlydisk:foo"): "unknown readonly_disk parameter",
        (document, "live:true"): "live support was removed",
        ("nosuch",): "Domain not found",
    }.items():
        code, out, err = fish("add-domain", *words)
        assert (code, out) == (1, "") and reason in err


def test_disks_come_after_run_too(copy: Path) -> None:
    words = "run : add-drive-scratch 1M : list-devices : mountable-device /dev/sda1 : set-memsize 700"
    code, out, err = fish("-a", copy, *words.split())
    assert (code, out) == (1, "/dev/sda\n/dev/sdb\n/dev/sda1\n")
    assert err.endswith("set_memsize: this function can only be called in the config state\n")
    assert fish("-a", copy, "run", ":", "sleep", "-1")[0] == 1


def test_tail_follows_until_the_files_are_gone(copy: Path) -> None:
    def change(*words: str) -> None:
        assert fish("-a", copy, "-m", "/dev/sda1", *words) == (0, "", "")

    change("write", "/etc/log", "one\ntwo\n")
    argv = [sys.executable, "-u", "-m", "cowshed", "virt-tail", "-a", str(copy), "/etc/log", "/nope", "/etc/hostname"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0) as follower:
        assert follower.stdout is not None

        def told(end: bytes) -> bytes:
            assert follower.stdout is not None
            text = b""
            while not text.endswith(end):
                piece = os.read(follower.stdout.fileno(), 4096)
                assert piece, text
                text += piece
            return text

        head = b"\n\n--- /etc/log ---\n\n"
        assert told(b"web1\n") == head + b"one\ntwo\n\n\n--- /etc/hostname ---\n\nweb1\n"
        change("write-append", "/etc/log", "three")
        assert told(b"three") == head + b"three"
        change("write", "/etc/log", "new")
        assert told(b"new") == b"new"
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as other:
            assert other.stdout is not None and other.stdout.read(1) == b"\n"
            other.send_signal(signal.SIGINT)
            assert other.wait(60) == 0 and other.stderr is not None and other.stderr.read() == b""
        change("rm", "/etc/log", ":", "rm", "/etc/hostname")
        assert follower.stdout.read() == b"virt-tail: all files deleted, exiting\n"
        assert follower.wait(60) == 0 and follower.stderr is not None and follower.stderr.read() == b""
    told_at_once = (1, "", "virt-tail: error: none of the files were found in the disk image\n")
    assert fish("-a", copy, "/etc/log", "/nope", tool="virt-tail") == told_at_once


def test_names_complete(disk: Path) -> None:
    out = Output("guestfish", stdout=os.open(os.devnull, os.O_WRONLY))
    shell = Fish(out, readonly=True)
    shell.session.add(str(disk))
    shell.session.run()
    assert candidates(shell, "", "part-get-disk") == ["part-get-disk-guid "]
    assert candidates(shell, "mount ", "/dev/sd") == ["/dev/sda ", "/dev/sda1 "]
    shell.session.mount("/dev/sda1")
    assert candidates(shell, "cat ", "/etc/h") == ["/etc/hostname "] and candidates(shell, "ls ", "/et") == ["/etc/"]
    shell.close()
    assert "vi" in names()


def test_a_person_has_a_prompt_a_banner_and_goes_on_after_errors(disk: Path, tmp_path: Path) -> None:
    pid, fd = pty.fork()
    if not pid:
        os.environ["HOME"] = str(tmp_path)
        os.execv(sys.executable, [sys.executable, "-m", "cowshed", "guestfish", "--ro", "-a", str(disk)])
    text = ""

    def until(mark: str) -> None:
        nonlocal text
        end = time.monotonic() + 60
        while mark not in text:
            assert time.monotonic() < end, text
            if select.select([fd], [], [], 1)[0]:
                text += os.read(fd, 65536).decode(errors="replace")

    until("><fs> ")
    assert "Welcome to guestfish, the guest filesystem shell for" in text
    for line, mark in (
        ("run\n", "><fs> "),
        ("nope\n", "nope: unknown command"),
        ("list-filesystems\n", "/dev/sda1: ext4"),
    ):
        text = ""
        os.write(fd, line.encode())
        until(mark)
    os.write(fd, b"quit\n")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    os.close(fd)
    assert (tmp_path / ".guestfish").read_text() == "run\nnope\nlist-filesystems\nquit\n"
    assert stat.S_IMODE((tmp_path / ".guestfish").stat().st_mode) == 0o600


# ---- the tools beside it


def test_the_tools_beside_it(copy: Path, tmp_path: Path) -> None:
    assert fish("-a", copy, "/etc/hostname", tool="virt-cat") == (0, "web1\n", "")
    assert fish("-a", copy, "/etc", tool="virt-ls")[1].split("\n")[0] == "a b"
    assert fish("-a", copy, tool="virt-filesystems")[1] == "/dev/sda1\n"
    told = fish("-a", copy, tool="virt-df")[1].splitlines()
    assert told[0] == "Filesystem                           1K-blocks       Used  Available  Use%"
    assert told[1].startswith("copy.img:/dev/sda1")
    code, _, err = fish("-a", copy, "-e", "s/web1/web2/", "-b", ".bak", "/etc/hostname", tool="virt-edit")
    assert (code, err) == (0, "")
    assert fish("-a", copy, "/etc/hostname", "/etc/hostname.bak", tool="virt-cat")[1] == "web2\nweb1\n"
    (tmp_path / "in").mkdir()
    (tmp_path / "in/f").write_text("text")
    assert fish("-a", copy, tmp_path / "in", "/boot", tool="virt-copy-in") == (0, "", "")
    out = tmp_path / "out"
    out.mkdir()
    assert fish("-a", copy, "/boot/in", out, tool="virt-copy-out") == (0, "", "")
    assert (out / "in/f").read_text() == "text"
    assert fish("-a", copy, "/boot", out / "b.tar", tool="virt-tar-out") == (0, "", "")
    assert fish("-a", copy, out / "b.tar", "/usr", tool="virt-tar-in") == (0, "", "")
    told = fish("-a", copy, tool="virt-inspector")[1]
    assert "<distro>debian</distro>" in told
    assert "<icon>" not in told
    image = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
    (tmp_path / "debian-logo.png").write_bytes(image)
    place = "/usr/share/pixmaps"
    words = ("mkdir-p", place, ":", "copy-in", tmp_path / "debian-logo.png", place)
    assert fish("-a", copy, "-i", *words) == (0, "", "")
    icon = fish("-a", copy, tool="virt-inspector")[1].partition("<icon>")[2].partition("</icon>")[0]
    assert base64.b64decode(icon) == image and max(map(len, icon.splitlines())) == 72
    assert "<icon>" not in fish("-a", copy, "--no-icon", tool="virt-inspector")[1]
    assert "xmllint" in fish("--xpath", "/", tool="virt-inspector")[2]
    if judges.find("xmllint"):
        judges.run("xmllint", "--noout", "-", input=told)
    assert fish("-a", copy, "/nope", tool="virt-cat")[0] == 1 and fish("/etc/hostname", tool="virt-cat")[0] == 1
    judges.run("e2fsck", "-fn", f"{copy}?offset=1048576")


def test_a_domain_names_its_disks(copy: Path, tmp_path: Path) -> None:
    xml = tmp_path / "d.xml"
    xml.write_text(
        "<domain><name>web</name><devices><disk type='file' device='disk'><driver name='qemu' type='raw'/>"
        f"<source file='{copy}'/><target dev='vda'/></disk></devices></domain>"
    )
    assert fish("--ro", "-d", xml, "-i", "cat", "/etc/hostname") == (0, "web1\n\n", "")
    assert fish("-d", "nosuchdomain", "run")[0] == 1
