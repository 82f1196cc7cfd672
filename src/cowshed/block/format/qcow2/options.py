"""The qcow2 driver's creation and amendment options."""

from __future__ import annotations

from ...options import Option, OptionTable

_ENCRYPTION = (
    Option("encrypt.cipher-alg", "str", "Name of encryption cipher algorithm"),
    Option("encrypt.cipher-mode", "str", "Name of encryption cipher mode"),
    Option("encrypt.format", "str", "Encrypt the image, format choices: 'aes', 'luks'", choices=("aes", "luks")),
    Option("encrypt.hash-alg", "str", "Name of encryption hash algorithm"),
    Option("encrypt.iter-time", "num", "Time to spend in PBKDF in milliseconds"),
    Option("encrypt.ivgen-alg", "str", "Name of IV generator algorithm"),
    Option("encrypt.ivgen-hash-alg", "str", "Name of IV generator hash algorithm"),
    Option("encrypt.key-secret", "str", "ID of secret providing qcow AES key or LUKS passphrase"),
)

COMPAT = ("0.10", "v2", "1.1", "v3")

# the order is that of the "Formatting" line
CREATE = OptionTable(
    "qcow2",
    (
        *_ENCRYPTION,
        Option(
            "encryption",
            "bool",
            "Encrypt the image with format 'aes'. (Deprecated in favor of encrypt.format=aes)",
        ),
        Option("cluster_size", "size", "qcow2 cluster size", default=65536),
        Option("extended_l2", "bool", "Extended L2 tables", default=False),
        Option(
            "preallocation",
            "str",
            "Preallocation mode (allowed values: off, metadata, falloc, full)",
            choices=("off", "metadata", "falloc", "full"),
        ),
        Option(
            "compression_type",
            "str",
            "Compression method used for image cluster compression",
            default="zlib",
            choices=("zlib", "zstd"),
        ),
        Option("size", "size", "Virtual disk size"),
        Option("compat", "str", "Compatibility level (v2 [0.10] or v3 [1.1])", choices=COMPAT),
        Option("backing_file", "str", "File name of a base image"),
        Option("backing_fmt", "str", "Image format of the base image"),
        Option("data_file", "str", "File name of an external data file"),
        Option("data_file_raw", "bool", "The external data file must stay valid as a raw image"),
        Option("lazy_refcounts", "bool", "Postpone refcount updates", default=False),
        Option("refcount_bits", "num", "Width of a reference count entry in bits", default=16),
    ),
)

AMEND = OptionTable(
    "qcow2",
    (
        Option("encrypt.iter-time", "num", "Time to spend in PBKDF in milliseconds"),
        Option("encrypt.keyslot", "num", "Select a single keyslot to modify explicitly"),
        Option("encrypt.new-secret", "str", "New secret to set in the matching keyslots. Empty string to erase"),
        Option("encrypt.old-secret", "str", "Select all keyslots that match this password"),
        Option("encrypt.state", "str", "Select new state of affected keyslots (active/inactive)"),
        Option("size", "size", "Virtual disk size"),
        Option("compat", "str", "Compatibility level (v2 [0.10] or v3 [1.1])", choices=COMPAT),
        Option("backing_file", "str", "File name of a base image"),
        Option("backing_fmt", "str", "Image format of the base image"),
        Option("data_file", "str", "File name of an external data file"),
        Option("data_file_raw", "bool", "The external data file must stay valid as a raw image"),
        Option("lazy_refcounts", "bool", "Postpone refcount updates"),
        Option("refcount_bits", "num", "Width of a reference count entry in bits"),
    ),
)
