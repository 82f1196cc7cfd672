"""The creation options of vmdk, in the order in which the ``Formatting`` line shows them."""

from __future__ import annotations

from ...options import Option, OptionTable

ADAPTERS = ("ide", "lsilogic", "buslogic", "legacyESX")
SUBFORMATS = ("monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat", "streamOptimized")

CREATE = OptionTable(
    "vmdk",
    (
        Option("size", "size", "Virtual disk size"),
        Option(
            "adapter_type", "str", "Virtual adapter type, can be one of ide (default), lsilogic, buslogic or legacyESX",
            choices=ADAPTERS,
        ),
        Option("backing_file", "str", "File name of a base image"),
        Option("backing_fmt", "str", "Must be 'vmdk' if present"),
        Option("compat6", "bool", "VMDK version 6 image", False),
        Option("hwversion", "str", "VMDK hardware version", "undefined"),
        Option("toolsversion", "str", "VMware guest tools version"),
        Option(
            "subformat", "str",
            "VMDK flat extent format, can be one of {monolithicSparse (default) | monolithicFlat | "
            "twoGbMaxExtentSparse | twoGbMaxExtentFlat | streamOptimized} ",
            choices=SUBFORMATS,
        ),
        Option("zeroed_grain", "bool", "Enable efficient zero writes using the zeroed-grain GTE feature"),
    ),
)  # fmt: skip
