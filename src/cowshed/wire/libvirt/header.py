"""The comment with which libvirt begins the files that it keeps."""

from __future__ import annotations

# A name with one of these is nothing to paste into a shell.
_UNSAFE = frozenset("\r\t\n !\"#$&'()*;<>?[\\]^`{|}~")


def header(command: str, *names: str | None) -> str:
    """libvirt's warning that the file is not for editing, and the command that is: ``virsh COMMAND NAME``, with the
    first of ``names`` that a shell and an XML comment leave alone."""
    safe = next((name for name in names if name and not _UNSAFE.intersection(name) and "--" not in name), None)
    return (
        "<!--\n"
        "WARNING: THIS IS AN AUTO-GENERATED FILE. CHANGES TO IT ARE LIKELY TO BE\n"
        "OVERWRITTEN AND LOST. Changes to this xml configuration should be made using:\n"
        f"  virsh {command}{' ' + safe if safe else ''}\n"
        "or other application using the libvirt API.\n"
        "-->\n\n"
    )
