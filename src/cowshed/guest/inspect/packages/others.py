"""Alpine's installed database (apk(5), "installed") and pacman's local database."""

from __future__ import annotations

from ..application import Application

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..access import Files

MAX_INSTALLED = 128 << 20
LOCAL = "/var/lib/pacman/local"


def read_apk(files: Files) -> Iterator[Application]:
    for path in ("/lib/apk/db/installed", "/usr/lib/apk/db/installed"):
        data = files.read(path, MAX_INSTALLED)
        if data is None:
            continue
        for paragraph in data.decode("utf-8", "replace").split("\n\n"):
            fields: dict[str, str] = {}
            for line in paragraph.split("\n"):
                if line[1:2] == ":":
                    fields.setdefault(line[0], line[2:].strip())
            if fields.get("P") and fields.get("V"):
                # 1.2.3-r4: the release is always there and begins with r
                version, dash, release = fields["V"].rpartition("-")
                if not dash:
                    version, release = fields["V"], ""
                found = Application(fields["P"], version, release, 0, fields.get("A", ""))
                found.url = fields.get("U", "")
                found.summary = fields.get("T", "")
                found.source_package = fields.get("o", "")
                found.publisher = fields.get("m", "")
                yield found
        return


def read_pacman(files: Files) -> Iterator[Application]:
    for name in files.names(LOCAL):
        data = files.read(f"{LOCAL}/{name}/desc")
        if data is None:
            continue
        fields: dict[str, str] = {}
        key = ""
        for line in data.decode("utf-8", "replace").split("\n"):
            if len(line) > 2 and line[0] == line[-1] == "%":
                key = line[1:-1]
            elif line and key:
                fields.setdefault(key, line)
        if not fields.get("NAME") or not fields.get("VERSION"):
            continue
        epoch, colon, rest = fields["VERSION"].partition(":")
        if not (colon and epoch.isascii() and epoch.isdigit() and len(epoch) < 10):
            epoch, rest = "0", fields["VERSION"]
        version, dash, release = rest.rpartition("-")
        if not dash:
            version, release = rest, ""
        found = Application(fields["NAME"], version, release, int(epoch), fields.get("ARCH", ""))
        found.url = fields.get("URL", "")
        found.summary = found.description = fields.get("DESC", "")
        found.publisher = fields.get("PACKAGER", "")
        found.source_package = fields.get("BASE", "")
        yield found
