"""dpkg's status database: paragraphs of fields (deb822(5), deb-version(7))."""

from __future__ import annotations

from ..application import Application

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..access import Files

STATUS = "/var/lib/dpkg/status"
#: systems without a writable /var keep one file a package
STATUS_D = "/var/lib/dpkg/status.d"
MAX_STATUS = 128 << 20


def read_dpkg(files: Files) -> Iterator[Application]:
    data = files.read(STATUS, MAX_STATUS)
    if data is not None:
        for fields in paragraphs(data):
            found = _package(fields)
            if found is not None and fields.get("status", "").split()[-1:] == ["installed"]:
                yield found
    for name in files.names(STATUS_D):
        if not name.endswith((".md5sums", ".preinst", ".postinst", ".prerm", ".postrm")):
            for fields in paragraphs(files.read(f"{STATUS_D}/{name}") or b""):
                found = _package(fields)
                if found is not None:
                    yield found


def paragraphs(data: bytes) -> Iterator[dict[str, str]]:
    """The fields of each paragraph, names in lower case, continuation lines behind a line feed."""
    fields: dict[str, list[str]] = {}
    last: list[str] | None = None
    for line in data.decode("utf-8", "replace").split("\n"):
        line = line.rstrip("\r")
        if not line.strip():
            if fields:
                yield {name: "\n".join(parts) for name, parts in fields.items()}
            fields, last = {}, None
        elif line[0] in " \t":
            if last is not None:
                last.append(line[1:])
        else:
            name, _, value = line.partition(":")
            last = fields[name.strip().lower()] = [value.strip()]
    if fields:
        yield {name: "\n".join(parts) for name, parts in fields.items()}


def _package(fields: dict[str, str]) -> Application | None:
    name, full = fields.get("package", ""), fields.get("version", "")
    if not name or not full:
        return None
    epoch, colon, rest = full.partition(":")
    if not (colon and epoch.isascii() and epoch.isdigit() and len(epoch) < 10):
        epoch, rest = "0", full
    version, dash, release = rest.rpartition("-")
    if not dash:
        version, release = rest, ""
    found = Application(name, version, release, int(epoch), fields.get("architecture", ""))
    found.url = fields.get("homepage", "")
    found.source_package = fields.get("source", "").split(" ", 1)[0]
    summary, _, text = fields.get("description", "").partition("\n")
    found.summary = summary
    found.description = text
    return found
