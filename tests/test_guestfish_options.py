"""guestfish's options, beside the real program's: what is said and returned, of everything that needs no disk."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

import judges
from cowshed.cli.guestfish.arguments import Refused, windows_path
from cowshed.cli.guestfish.config import Malformed, read_only
from cowshed.cli.guestfish.fish import Fish
from cowshed.cli.guestfish.help import describe
from cowshed.cli.guestfish.main import OPTIONS
from cowshed.cli.guestfish.table import commands, find
from cowshed.cli.main import call
from cowshed.cli.output import Output
from cowshed.guest.inspect import SessionGuest
from cowshed.guest.inspect.root import Root

#: each a command line, in a directory with a file `disk` of no content that means anything and a script `s.gf`
LINES = [
    # what getopt says
    *(f"--{name}" for name in (
        "nope", "a", "no", "no-", "r", "k", "c", "v", "f", "m", "n", "ne", "new", "mount", "add", "domain",
        "connect", "file",
        "key", "ro=1", "listen=", "csh=x", "x", "trace", "D", "inspector=1", "p", "s", "e", "b", "long", "short",
        "ver", "net",
    )),
    "-z", "-a", "-xz", "-?", "-rm", "-", "-- -nosuch", "-N", "echo -z", "echo -- -z", "echo a --ver",
    "echo --version",
    "-V -z", "-xV", "--version --nope", "--nope --version", "-Va", "--long-options", "--short-options",
    # one option against another, and their values
    "--listen --remote=4", "--remote=4 --listen", "--listen x", "--listen --file=s.gf", "--csh --listen -f s.gf",
    "--live",
    "--ro --rw echo x", "--rw --ro echo x", "--ro --ro echo x", "-f s.gf -f s.gf", "-f nope", "-f nope echo",
    "-f s.gf",
    "-f s.gf echo only", "--format", "--format=raw", "--blocksize", "--blocksize=512", "--format --blocksize",
    "--blocksize --format", "-a disk --format=raw", "--format=raw -a disk --format", "--format=raw -a disk echo x",
    "--blocksize=x -a disk", "--blocksize=512x -a disk echo x", "--blocksize=0 -a disk echo x",
    "--blocksize=1 -a disk",
    "--blocksize= -a disk echo x", "--blocksize=-512 -a disk", "--blocksize=4096 -a disk echo x", "-a nope",
    "-a=disk",
    "--add=", "-a file:nope", "-a /nope/x", "-adisk echo x", "--network --selinux -n -r echo x", "-D echo x",
    "--no-dest-paths echo x", "--pipe-error echo x", "--no-progress-bars --progress-bars echo x",
    "--echo-keys echo x",
    "-i", "-m /dev/sda", "-i -m /dev/sda", "-ab",
    # keys
    *(f"--key {selector} echo x" for selector in (
        "a", "a:b", "a:b:c", "::", ":key:x", "x:key", "x:file", "x:key:a:b", "x:file:a:b", "x:clevis", "x:clevis:y",
        "/dev/sda:file:/nope", "all:key:y", "x:KEY:y",
    )),
    "--key= echo x", "--keys-from-stdin echo x",
    # a server that isn't there
    "--remote", "--remote echo x", "--remote= echo x", "--remote=abc echo x", "--remote=99999999 echo x",
    "--remote=0 echo x", "--remote=0x10 echo x", "--remote=1 echo x", "--re=99999999x echo x",
    "--remote=99999999 -- -x",
    "--remote=99999999 -a disk x", "--remote=99999999 -a nope x", "--remote=-3 echo",
    "--remote=99999999 echo a : echo b",
    # commands on the command line
    "echo", "echo a : echo b", "echo a :", ": echo a", ": :", "-- -echo a : -nosuch : echo b", "nosuch",
    "echo : nosuch",
    "echo a:b", "echo -- a : -- b", "-x nosuch", "help : echo", "-h nosuch", "-hnosuch", "--cmd-help=nosuch",
    "-h cat_x",
    "-hh", "--cmd-help=", "help nosuch", "help cat x", "list-devices", "-- - echo a", "-- -", "-- '' x",
]  # fmt: skip
#: with another environment
SURROUNDED = [
    ({"GUESTFISH_PID": ""}, "--remote echo x"), ({"GUESTFISH_PID": "abc"}, "--remote echo x"),
    ({"GUESTFISH_PID": " 99999999x"}, "--remote echo x"), ({"GUESTFISH_PID": "1"}, "--remote echo x"),
    ({"POSIXLY_CORRECT": "1"}, "echo --version"), ({"POSIXLY_CORRECT": "1"}, "echo a : echo -z"),
    ({"LC_ALL": "C"}, "--nope"), ({"GUESTFISH_PS1": "x", "GUESTFISH_OUTPUT": "y"}, "echo a"),
]  # fmt: skip
#: lines of one script; where one fails the next is tried
SCRIPT = r"""
echo a
nosuch
cat
cat a b
cat "a"b
cat 'a
cat "a
echo "\q"
echo "\x0"
echo "\000"
echo "\08"
echo "\\ \" \x41 \101"
echo 'a b' "c\td" e'f g'h
echo ~ ~root ~root/y "~" ~nosuchuser/x a~
- list-devices
-- list-devices
"echo" x
'echo' x
write /a
add
add nope
add disk readonly
add disk readonly:maybe
add disk nosuch:1
add disk readonly:true readonly:true
add disk label:
add disk label:a_b
add-ro nope
sparse
sparse x
alloc x.img -5
sparse x.img ""
lcd
lcd /nope
lcd /tmp /tmp
setenv
setenv A
setenv A B C
unsetenv
time
time nosuch
glob
glob echo x
glob nosuch
edit
edit a b
vi
emacs a b
more
less
hexedit
hexedit a b c d
display
copy-in
copy-in a
copy-out a
copy-out
reopen x
help nosuch
help cat extra
event
event a
delete-event
set-memsize x
set-memsize 1 2
set-verbose maybe
set-trace 2
set-network tRuE
get-network
set_network false
get_network
disk-create x.qcow2 vmdk 1M
run x
launch x
chmod x /a
chmod 0777 /a
ls a
ls
mount a
mkfs a b nosuch:x
grep a b fixed:1 fixed:1
truncate-size a b
exists a
is-file a followsymlinks:2
echo | cat
echo a |cat
echo a|cat
echo "|" a
echo a | false
echo a | nosuchprogram_xyz 2>/dev/null
echo "a # b" # c
   echo blanks
!echo local
-!false
<! echo echo inline
<! printf 'echo one\necho two\n'
- echo behind a hyphen
- - echo behind two
glob echo ~
echo "ab\q"
help help nosuch
"""
ENV = {"LC_ALL": "C.UTF-8", "LIBGUESTFS_BACKEND": "direct", "HOME": "/tmp", "XDG_CONFIG_HOME": "", "TZ": "UTC"}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "disk").write_bytes(b"x" * 4096)
    (tmp_path / "s.gf").write_text("echo from a script\n-nosuch\nlist-devices\necho never\n")
    return tmp_path


def ours(words: list[str], cwd: Path, env: Mapping[str, str], input: bytes = b"") -> tuple[int, str]:
    """The exit status and both streams in one, of a process that has everything loaded already."""
    told = cwd.parent / "told"
    given = cwd.parent / "given"
    given.write_bytes(input)
    told.unlink(missing_ok=True)
    pid = os.fork()
    if not pid:
        code = 70
        try:
            os.chdir(cwd)
            os.environ.update({**ENV, **env})
            fd = os.open(told, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(os.open(given, os.O_RDONLY), 0)
            os.dup2(fd, 1)
            os.dup2(fd, 2)
            sys.stdin = open(0, closefd=False)  # noqa: SIM115
            out = Output("guestfish")
            code = call("guestfish", ["guestfish", *words], out)
            out.flush()
        finally:
            os._exit(code)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return status, told.read_text(errors="surrogateescape") if told.exists() else ""


def theirs(words: list[str], cwd: Path, env: Mapping[str, str], input: bytes = b"") -> tuple[int, str]:
    done = subprocess.run(
        ["guestfish", *words], executable=judges.need("guestfish"), cwd=cwd, input=input,
        env={**os.environ, **ENV, **env},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60, check=False,
    )  # fmt: skip
    # what its library is called for is its own
    return done.returncode, re.sub("(?m)^libguestfs: trace: .*\n", "", done.stdout.decode(errors="surrogateescape"))


def words_of(line: str) -> list[str]:
    return ["" if word == "''" else word for word in line.split()]


def test_options_beside_the_real_program(place: Path) -> None:
    judges.need("guestfish")
    differ = []
    cases = [({}, line) for line in LINES] + SURROUNDED
    for env, line in cases:
        real, mine = theirs(words_of(line), place, env), ours(words_of(line), place, env)
        # what the first way to begin is, is told in words of our own
        if line == "help : echo":
            real, mine = (real[0], real[1][-1:]), (mine[0], mine[1][-1:])
        if real != mine:
            differ.append(f"{env or ''} {line}\n   real: {real}\n   ours: {mine}")
    assert not differ, "\n".join(differ)


def test_a_script_beside_the_real_program(place: Path) -> None:
    judges.need("guestfish")
    lines = [line if line.startswith(("-", "<!", "!")) else f"-{line}" for line in SCRIPT.strip("\n").split("\n")]
    text = "".join(f"echo @@ {number}\n{line}\n" for number, line in enumerate(lines))
    (place / "all.gf").write_text(text)
    cut = re.compile(r"^@@ \d+\n", re.MULTILINE)
    real, mine = ([*cut.split(run(["-f", "all.gf"], place, {})[1])] for run in (theirs, ours))
    assert len(real) == len(lines) + 1 == len(mine), (len(real), len(lines), len(mine), mine[-1])
    differ = [
        f"{line}\n   real: {one!r}\n   ours: {two!r}"
        for line, one, two in zip(lines, real[1:], mine[1:], strict=True)
        if one != two
    ]
    assert not differ, "\n".join(differ)


def test_help_tells_of_every_command_and_option(place: Path) -> None:
    code, text = ours(["--help"], place, {})
    assert code == 0
    shown = set(re.findall(r"(?m)(?:^  |\|)(--?[a-zA-Z-]+)", text))
    hidden = {"live", "long-options", "short-options"}
    assert shown >= {f"--{one.long}" for one in OPTIONS if one.long and one.long not in hidden}
    assert shown >= {f"-{one.short}" for one in OPTIONS if one.short and one.short != "D"}
    code, listed = ours(["-h"], place, {})
    rows = dict(line.split(None, 1) for line in listed.splitlines()[1:-1])
    names = {name for known in commands() for name in known.names if not name.endswith("-opts")}
    assert code == 0 and set(rows) == names and all(rows.values())
    lines = listed.splitlines()
    assert lines[1].startswith("help ") and lines[2].startswith("quit ") and lines[3:-1] == sorted(lines[3:-1])
    # short for --listen
    assert (
        ours(["help", "--list"], place, {})[1] == "guestfish: extra parameters on the command line with --listen flag\n"
    )
    assert ours(["--", "help", "--list"], place, {}) == ours(["-h"], place, {})
    assert "‘help cmd’" in ours(["help"], place, {})[1]
    for known in commands():
        page = "".join(describe(known))
        head = f"NAME\n    {known.name} - {known.help}\n\nSYNOPSIS\n     {known.usage}\n\nDESCRIPTION\n    "
        assert page.startswith(head) and page.endswith("\n\n"), known.name
        assert all(argument.name in page for argument in known.arguments)
        assert max(map(len, page[len(head) :].splitlines())) <= 100
    assert "'run' as an alias" in ours(["-h", "launch"], place, {})[1]
    assert ours(["-h", "launch"], place, {}) == ours(["help", "run"], place, {})


CONFIGS = [
    ("read_only = true;\n", True), ("read_only = true", True), ("read_only = 1;", False),
    ('read_only = "true";', False),
    ("read_only: TRUE;\n", True), ("# c\nfoo = 3;\nread_only = True;\n", True),
    ("/* x */ read_only = true; // y\n", True),
    ("foo = { a = 1; };\nread_only=true,\n", True), ("read_only = false;", False), ("", False), ("# nothing\n", False),
    ("a = [3,];", None), ("# nothing", None), ("a = 1; // x", None),
    ('foo = [1,2,3]; bar = ("x", 1.5, 0x10L);\nread_only=true;', True), ("g = { read_only = true; };", False),
    ("read_only = ;\n", None), ("garbage\n", None), ("read_only = true;\nread_only = false;\n", None),
    ("a = [1 2];", None),
    ('a = "x;', None), ("{", None), ("a = (1, {b = 2;}, [3]);read_only = true;", True),
    ("= 3;", None), ("a = b c;", None),
]  # fmt: skip


def test_configuration_beside_the_real_program(place: Path) -> None:
    judges.need("guestfish")
    folder = place / "config/libguestfs"
    folder.mkdir(parents=True)
    env = {"XDG_CONFIG_HOME": str(place / "config")}
    for text, wanted in CONFIGS:
        (folder / "libguestfs-tools.conf").write_text(text)
        done = subprocess.run(
            [judges.need("guestfish"), "-x", "-a", "disk", "echo"], cwd=place, env={**os.environ, **ENV, **env},
            capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
        real = ("readonly:true" in done.stderr) if not done.returncode else None
        assert real is wanted, (text, done.stderr)
        with pytest.MonkeyPatch.context() as patch:
            for name, value in {**ENV, **env}.items():
                patch.setenv(name, value)
            if wanted is None:
                with pytest.raises(Malformed) as caught:
                    read_only()
                assert f"guestfish: {caught.value}\n" == done.stderr.replace(judges.need("guestfish"), "guestfish"), (
                    text
                )
            else:
                assert read_only() is wanted, text


def test_configuration_files_and_what_options_say_to_them(place: Path) -> None:
    image = place / "image"
    judges.ext4_image(image, 8 << 20)
    write = ["-a", str(image), "-m", "/dev/sda", "write", "/f", "x"]
    (place / ".libguestfs-tools.rc").write_text("read_only = true;")
    env = {"HOME": str(place), "XDG_CONFIG_DIRS": str(place / "dirs")}
    code, text = ours(write, place, env)
    assert code == 1 and "Read-only file system" in text
    assert ours(["--rw", *write], place, env) == (0, "")
    (place / "dirs/libguestfs").mkdir(parents=True)
    (place / "dirs/libguestfs/libguestfs-tools.conf").write_text("read_only = false;")
    assert ours(write, place, env)[0] == 1  # the user's own counts more
    (place / ".config/libguestfs").mkdir(parents=True)
    (place / ".config/libguestfs/libguestfs-tools.conf").write_text("read_only = false;")
    assert ours(write, place, env) == (0, "")
    (place / ".config/libguestfs/libguestfs-tools.conf").write_text("read_only")
    assert ours(["echo"], place, env)[0] == 1


# ---- encrypted disks


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A disk with two partitions: a system in LUKS 1 as QEMU writes it, files in LUKS 2 as cryptsetup writes it."""
    place = tmp_path_factory.mktemp("encrypted")
    tree = place / "tree"
    for name in ("etc", "bin", "usr", "var/lib/dpkg", "boot", "lib", "dev", "proc", "root", "tmp"):
        (tree / name).mkdir(parents=True)
    (tree / "etc/fstab").write_text("LABEL=ROOT / ext4 defaults 0 1\n")
    (tree / "etc/hostname").write_text("web1\n")
    (tree / "etc/debian_version").write_text("12.5\n")
    (tree / "etc/os-release").write_text('ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n')
    (place / "key").write_text("secret")
    (place / "other").write_text("another")
    judges.ext4_image(place / "plain", 16 << 20, tree)
    judges.run("debugfs", "-w", "-R", "set_super_value volume_name ROOT", place / "plain")
    judges.qemu_img(
        "convert", "-q", "-f", "raw", "-O", "luks", "--object", f"secret,id=s,file={place}/key", "-o",
        "key-secret=s,iter-time=10", place / "plain", place / "one",
    )  # fmt: skip
    with judges.ext4_image(place / "two", 8 << 20).open("ab") as file:
        file.truncate(40 << 20)
    judges.run(
        "cryptsetup", "reencrypt", "--encrypt", "--type", "luks2", "--reduce-device-size", "32M", "-q", "--pbkdf",
        "pbkdf2", "--pbkdf-force-iterations", "1000", "--key-file", place / "other", place / "two",
    )  # fmt: skip
    disk = place / "disk.img"
    first = -(-(place / "one").stat().st_size // (1 << 20)) << 20
    with disk.open("wb") as file:
        file.truncate((42 << 20) + first)
        file.seek(1 << 20)
        file.write((place / "one").read_bytes())
        file.seek((1 << 20) + first)
        file.write((place / "two").read_bytes())
    table = f"label: dos\nstart=2048, size={first // 512}, type=83\nstart={2048 + first // 512}, size=81920, type=83\n"
    judges.run("sfdisk", "-q", disk, input=table)
    return disk


def uuid(disk: Path, name: str) -> str:
    return judges.run("cryptsetup", "luksUUID", disk.parent / name).stdout.strip()


def test_keys_open_an_encrypted_system(encrypted: Path, place: Path) -> None:
    one = f"/dev/mapper/luks-{uuid(encrypted, 'one')}"
    two = f"/dev/mapper/luks-{uuid(encrypted, 'two')}"
    disk = ["--ro", "-a", str(encrypted)]
    look = ["-i", "mountpoints", ":", "cat", "/etc/hostname", ":", "list-dm-devices"]
    alone = (0, f"{one}: /\nweb1\n\n{one}\n")
    for selector in (
        "/dev/sda1:key:secret",
        f"{uuid(encrypted, 'one')}:file:{encrypted.parent}/key",
        "/dev/vda1:key:secret",
    ):
        assert ours([*disk, "--key", selector, *look], place, {}) == alone, selector
    both = ["--key", "/dev/sda1:key:secret", "--key", f"{uuid(encrypted, 'two')}:file:{encrypted.parent}/other"]
    assert ours([*disk, *both, *look], place, {}) == (
        0,
        f"{one}: /\nweb1\n\n" + "".join(f"{x}\n" for x in sorted((one, two))),
    )
    every = ["--key", "all:key:another", "--key", "all:key:secret"]
    assert ours([*disk, *every, *look], place, {})[1].count("/dev/mapper/") == 3
    # asked, a line for each
    assert ours([*disk, "--keys-from-stdin", *look], place, {}, b"secret\nanother\n")[1].count("/dev/mapper/") == 3
    opened = ["run", ":", "luks-open", "/dev/sda2", "x", ":", "list-dm-devices"]
    assert ours([*disk, "--keys-from-stdin", *opened], place, {}, b"another\n") == (0, "/dev/mapper/x\n")


def test_keys_that_do_not_fit(encrypted: Path, place: Path) -> None:
    disk = ["--ro", "-a", str(encrypted)]
    # as the real program says it with an appliance
    why = "cryptsetup exited with status 2: No key available with this passphrase."
    assert ours([*disk, "--key", "/dev/sda1:key:wrong", "-i"], place, {}) == (
        1,
        "guestfish: could not find key to open LUKS encrypted /dev/sda1.\n\nTry using --key on the command line.\n\n"
        f"Original error: cryptsetup_open: {why} (0)\n",
    )
    known = ["--key", "/dev/sda1:file:/nope", "-i"]
    assert ours([*disk, *known], place, {}) == (1, "guestfish: fopen: /nope: No such file or directory\n")
    asked = ["--keys-from-stdin", "-i"]
    assert ours([*disk, *asked], place, {}, b"secret\n") == (1, "guestfish: could not read key from user\n")
    opened = ["--keys-from-stdin", "run", ":", "cryptsetup-open", "/dev/sda1", "x"]
    told = f"*stdin*:0: libguestfs: error: cryptsetup_open: {why}\n"
    assert ours([*disk, *opened], place, {}, b"wrong\n") == (1, told)
    # nobody to ask: what is locked is left alone
    code, text = ours([*disk, "-i"], place, {})
    assert code == 1 and "no operating system was found on this disk" in text
    code, text = ours([*disk, "--key", "/dev/sda1:clevis", "-i"], place, {})
    assert code == 1


def test_what_is_written_into_luks_is_read_back(encrypted: Path, place: Path) -> None:
    copy = place / "copy.img"
    copy.write_bytes(encrypted.read_bytes())
    keys = ["--key", "all:key:another", "--key", "all:key:secret"]
    assert ours(["-a", str(copy), *keys, "-i", "write", "/etc/hostname", "web2"], place, {}) == (0, "")
    # what lies below an unlocked volume is not overwritten
    opened = ["--keys-from-stdin", "run", ":", "cryptsetup-open", "/dev/sda1", "x", ":", "--", "-wipefs", "/dev/sda1"]
    code, text = ours(["-a", str(copy), *opened, ":", "part-del", "/dev/sda", "1"], place, {}, b"secret\n")
    assert code == 1 and "Device or resource busy" in text and "device is in use" in text
    assert ours(["--ro", "-a", str(copy), *keys, "-i", "cat", "/etc/hostname"], place, {}) == (0, "web2\n")
    # QEMU reads the clear text, e2fsck judges it
    part = place / "part"
    size = (encrypted.parent / "one").stat().st_size
    part.write_bytes(copy.read_bytes()[1 << 20 : (1 << 20) + size])
    judges.qemu_img(
        "convert", "-q", "--object", f"secret,id=s,file={encrypted.parent}/key", "--image-opts",
        f"driver=luks,key-secret=s,file.filename={part}", "-O", "raw", place / "clear",
    )  # fmt: skip
    judges.run("e2fsck", "-fn", place / "clear")
    assert "web2" in judges.run("debugfs", "-R", "cat /etc/hostname", place / "clear").stdout


# ---- domains, mounts


def domain(disks: str, name: str = "web") -> str:
    return f"<domain type='kvm'><name>{name}</name><uuid>{UUID}</uuid><devices>{disks}</devices></domain>"


UUID = "01234567-89ab-cdef-0123-456789abcdef"


def test_domains(place: Path) -> None:
    one = judges.ext4_image(place / "one", 8 << 20)
    two = judges.ext4_image(place / "two", 8 << 20)
    xml = place / "d.xml"

    def of(disks: str, *words: str) -> tuple[int, str]:
        xml.write_text(domain(disks))
        return ours(["-d", str(xml), *(words or ("run", ":", "list-devices"))], place, {})

    def disk(path: Path, more: str = "", kind: str = "file") -> str:
        attribute = "dev" if kind == "block" else kind
        return f"<disk type='{kind}' device='disk'><source {attribute}='{path}'/><target dev='vda'/>{more}</disk>"

    assert of(disk(one) + disk(two)) == (0, "/dev/sda\n/dev/sdb\n")
    assert of(disk(one, "<driver name='qemu' type='raw'/>") + disk(two, kind="block")) == (0, "/dev/sda\n/dev/sdb\n")
    cdrom = f"<disk type='file' device='cdrom'><source file='{two}'/></disk><disk type='file' device='disk'/>"
    assert of(cdrom + disk(one)) == (0, "/dev/sda\n")
    assert of(disk(one, "<readonly/>"), "-m", "/dev/sda", "write", "/x", "y") == (0, "")
    assert of(disk(one), "-m", "/dev/sda", "exists", "/x") == (0, "false\n")  # it went beside the disk
    assert of(disk(one), "-m", "/dev/sda", "write", "/x", "y") == (0, "")
    assert of(disk(one), "--ro", "-m", "/dev/sda", "cat", "/x") == (0, "y\n")
    network = "<disk type='network' device='disk'><source protocol='rbd' name='p/v'/><target dev='vdb'/></disk>"
    volume = "<disk type='volume' device='disk'><source pool='p' volume='v'/><target dev='vdc'/></disk>"
    locked = f"<disk type='file'><source file='{one}'><encryption format='luks'/></source><target dev='vdd'/></disk>"
    for disks, told in (
        (network, "‘vdb’ has a source of the type network (rbd)"), (volume, "the volume ‘v’ of the pool ‘p’"),
        (locked, "encrypted with a secret of libvirt"), ("", "libvirt domain has no disks"),
        (disk(place / "none"), "none: No such file or directory"),
    ):  # fmt: skip
        code, text = of(disks)
        assert code == 1 and text.startswith("libguestfs: error: ") and told in text, text
    for text in ("<domain", "<network/>", "<!DOCTYPE d [<!ENTITY a 'b'>]><domain>&a;</domain>"):
        xml.write_text(text)
        code, told = ours(["-d", str(xml), "run"], place, {})
        assert code == 1 and "not a d" in told, told
    # by name and uuid, out of libvirt's own files
    own = place / ".config/libvirt/qemu"
    own.mkdir(parents=True)
    (own / "web.xml").write_text(domain(disk(one)))
    home = {"HOME": str(place)}
    for words in (
        ["-d", "web"],
        ["-d", UUID],
        ["-c", "qemu:///session", "-d", "web"],
        ["-d", UUID.replace("-", "").upper()],
    ):
        assert ours([*words, "run", ":", "list-devices"], place, home) == (0, "/dev/sda\n"), words
    assert ours(["-i", "web"], place, home)[1].startswith("guestfish: no operating system was found")
    for words in (
        ["-c", "qemu:///system", "-d", "web"],
        ["-c", "qemu+ssh://h/system", "-d", "web"],
        ["-d", "nosuch"],
        ["-d", ""],
    ):
        code, text = ours([*words, "run"], place, home)
        assert code == 1 and text.startswith("libguestfs: error: "), text


def test_mounts_that_fail_say_what_could_be_mounted(place: Path) -> None:
    judges.ext4_image(place / "one", 8 << 20)
    code, text = ours(["--ro", "-a", "one", "-m", "/dev/sdz"], place, {})
    lines = text.splitlines()
    assert (
        code == 1
        and lines[0] == "libguestfs: error: mount_options: mount_options_stub: /dev/sdz: No such file or directory"
    )
    assert lines[1:] == [
        "guestfish: ‘/dev/sdz’ could not be mounted.",
        "guestfish: Check mount(8) man page to ensure options ‘ro’",
        "guestfish: are supported by the filesystem that is being mounted.",
        "guestfish: Did you mean to mount one of these filesystems?",
        "guestfish: \t/dev/sda (ext4)",
    ]
    assert ours(["-a", "one", "-m", "/dev/sda:/:ro", "mounts"], place, {}) == (0, "/dev/sda\n")
    assert ours(["-a", "one", "-m", "/dev/sda:/::ext4", "mounts"], place, {}) == (0, "/dev/sda\n")
    assert ours(["-a", "one", "-m", "/dev/sda:/::xfs", "mounts"], place, {})[0] == 1
    assert ours(["--blocksize=4096", "-a", "one", "run", ":", "blockdev-getss", "/dev/sda"], place, {}) == (0, "4096\n")


# ---- Windows' paths


def test_windows_paths_in_the_real_ones_words(encrypted: Path, place: Path) -> None:
    """What a guestfish with an appliance said to the same lines."""
    (place / "s.gf").write_text(
        "run\nmount /dev/sda /\n-cat WIN:\\ETC\\hostNAME\n-ls win:c:\\etc\n-cat win:/etc/HOSTNAME\n-ls win:etc\n"
        "-ls win:c\n-cat win:\\nope\\x\n-ls win:1:\\etc\n-ls win:\n-mkdir win:\\ETC\\New\n-is-dir /etc/New\n"
        "-cp win:\\etc\\hostname win:\\etc\\Copy\n-cat /etc/Copy\n-inspect-os\n-ls win:c:\\etc\n-ls win:\\etc\n"
    )
    (place / "plain").write_bytes((encrypted.parent / "plain").read_bytes())
    code, text = ours(["-a", "plain", "-f", "s.gf"], place, {})
    must = (
        'guestfish: to use Windows drive letters, you must inspect the guest ("-i" option or run "inspect-os" command)'
    )
    error = "libguestfs: error: case_sensitive_path: "
    slash = f"{error}case_sensitive_path_stub: path must start with a / character"
    names = ["bin", "boot", "dev", "etc", "lib", "lost+found", "proc", "root", "tmp", "usr", "var"]
    assert code == 0 and text.splitlines() == [
        "web1", "", must, "web1", "", f"s.gf:6: {slash}", f"s.gf:7: {slash}", f"s.gf:8: {error}nope: not found",
        f"s.gf:9: {slash}", *names, "true", "web1", "", "/dev/sda",
        "guestfish: to use Windows drive letters, this must be a Windows guest",
        f"s.gf:17: {error}case_sensitive_path_stub: you must call 'mount' first to mount the root filesystem",
    ]  # fmt: skip


def test_drive_letters_lead_to_where_the_drive_is_mounted(encrypted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fish = Fish(Output("guestfish", stdout=os.open(os.devnull, os.O_WRONLY)), readonly=True)
    fish.session.add(str(encrypted.parent / "plain"))
    fish.session.run()
    fish.session.mount("/dev/sda")
    known = find("inspect-get-drive-mappings")
    assert known is not None
    fish.guest = SessionGuest(fish.session)
    fish.roots = [Root(fish.guest, "/dev/sda")]
    monkeypatch.setattr(known, "handler", lambda shell, root: [("C", root), ("D", "/dev/sdb")])
    assert windows_path(fish, "win:c:\\ETC\\Hostname") == "/etc/hostname"
    assert fish.run(["mkdir", "/etc/Hostname"])
    assert windows_path(fish, "win:\\etc\\Hostname") == "/etc/Hostname"  # the one that is spelled so
    assert windows_path(fish, "WIN:C:") == "/" and windows_path(fish, "/win:c:") == "/win:c:"
    for word, told in (("win:d:\\x", "mount /dev/sdb first"), ("win:e:\\x", "drive 'e:' not found")):
        with pytest.raises(Refused, match=told):
            windows_path(fish, word)
    fish.close()
