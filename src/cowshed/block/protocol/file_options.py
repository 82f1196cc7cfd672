"""The ``file`` driver's creation options."""

from __future__ import annotations

from ..options import Option, OptionTable

CREATE = OptionTable(
    "file",
    (
        Option("size", "size", "Virtual disk size"),
        Option("nocow", "bool", "Turn off copy-on-write (valid only on btrfs)"),
        Option(
            "preallocation",
            "str",
            "Preallocation mode (allowed values: off, falloc, full)",
            choices=("off", "falloc", "full"),
        ),
        Option("extent_size_hint", "size", "Extent size hint for the image file, 0 to disable"),
    ),
)
