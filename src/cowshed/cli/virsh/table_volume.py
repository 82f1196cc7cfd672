"""The commands on storage volumes.

Each row: name, module of its handler, summary, description, options. Each option: name, kind, help; kinds are explained
in `table`. Names, kinds and texts are virsh 9.0's, whose ``help`` people and programs read.
"""

from __future__ import annotations

ROWS = (
    (
        "vol-clone",
        "volume_create",
        "clone a volume.",
        "Clone an existing volume within the parent pool.",
        (
            ("vol", "data!", "vol name, key or path"),
            ("newname", "data!", "clone name"),
            ("pool", "string", "pool name or uuid"),
            ("prealloc-metadata", "bool", "preallocate metadata (for qcow2 instead of full allocation)"),
            ("reflink", "bool", "use btrfs COW lightweight copy"),
            ("print-xml", "bool", "print XML document rather than clone the volume"),
        ),
    ),
    (
        "vol-create-as",
        "volume_create",
        "create a volume from a set of args",
        "Create a vol.",
        (
            ("pool", "data!", "pool name"),
            ("name", "data!", "name of the volume"),
            ("capacity", "data!", "size of the vol, as scaled integer (default bytes)"),
            ("allocation", "string", "initial allocation size, as scaled integer (default bytes)"),
            ("format", "string", "file format type raw,bochs,qcow,qcow2,qed,vmdk"),
            ("backing-vol", "string", "the backing volume if taking a snapshot"),
            ("backing-vol-format", "string", "format of backing volume if taking a snapshot"),
            ("prealloc-metadata", "bool", "preallocate metadata (for qcow2 instead of full allocation)"),
            ("print-xml", "bool", "print XML document, but don't define/create"),
        ),
    ),
    (
        "vol-create",
        "volume_create",
        "create a vol from an XML file",
        "Create a vol.",
        (
            ("pool", "data!", "pool name"),
            ("file", "data!", "file containing an XML vol description"),
            ("prealloc-metadata", "bool", "preallocate metadata (for qcow2 instead of full allocation)"),
            ("validate", "bool", "validate the XML against the schema"),
        ),
    ),
    (
        "vol-create-from",
        "volume_create",
        "create a vol, using another volume as input",
        "Create a vol from an existing volume.",
        (
            ("pool", "data!", "pool name or uuid"),
            ("file", "data!", "file containing an XML vol description"),
            ("vol", "data!", "vol name, key or path"),
            ("inputpool", "string", "pool name or uuid of the input volume's pool"),
            ("prealloc-metadata", "bool", "preallocate metadata (for qcow2 instead of full allocation)"),
            ("reflink", "bool", "use btrfs COW lightweight copy"),
            ("validate", "bool", "validate the XML against the schema"),
        ),
    ),
    (
        "vol-delete",
        "volume_show",
        "delete a vol",
        "Delete a given vol.",
        (
            ("vol", "data!", "vol name, key or path"),
            ("pool", "string", "pool name or uuid"),
            (
                "delete-snapshots",
                "bool",
                "delete snapshots associated with volume (must be supported by storage driver)",
            ),
            ("force", "bool+", "delete it also when it is the backing file of other volumes"),
        ),
    ),
    (
        "vol-download",
        "volume_data",
        "download volume contents to a file",
        "Download volume contents to a file",
        (
            ("vol", "data!", "vol name, key or path"),
            ("file", "data!", "file"),
            ("pool", "string", "pool name or uuid"),
            ("offset", "int", "volume offset to download from"),
            ("length", "int", "amount of data to download"),
            ("sparse", "bool", "preserve sparseness of volume"),
        ),
    ),
    (
        "vol-dumpxml",
        "volume_show",
        "vol information in XML",
        "Output the vol information as an XML dump to stdout.",
        (
            ("vol", "data!", "vol name, key or path"),
            ("pool", "string", "pool name or uuid"),
            ("xpath", "string-", "xpath expression to filter the XML document"),
            ("wrap", "bool", "wrap xpath results in an common root element"),
        ),
    ),
    (
        "vol-info",
        "volume_show",
        "storage vol information",
        "Returns basic information about the storage vol.",
        (
            ("vol", "data!", "vol name, key or path"),
            ("pool", "string", "pool name or uuid"),
            ("bytes", "bool", "sizes are represented in bytes rather than pretty units"),
            ("physical", "bool", "return the physical size of the volume in allocation field"),
        ),
    ),
    (
        "vol-key",
        "volume_show",
        "returns the volume key for a given volume name or path",
        "",
        (
            ("vol", "data!", "volume name or path"),
            ("pool", "string", "pool name or uuid"),
        ),
    ),
    (
        "vol-list",
        "volume_show",
        "list vols",
        "Returns list of vols by pool.",
        (
            ("pool", "data!", "pool name or uuid"),
            ("details", "bool", "display extended details for volumes"),
        ),
    ),
    (
        "vol-name",
        "volume_show",
        "returns the volume name for a given volume key or path",
        "",
        (("vol", "data!", "volume key or path"),),
    ),
    (
        "vol-path",
        "volume_show",
        "returns the volume path for a given volume name or key",
        "",
        (
            ("vol", "data!", "volume name or key"),
            ("pool", "string", "pool name or uuid"),
        ),
    ),
    (
        "vol-pool",
        "volume_show",
        "returns the storage pool for a given volume key or path",
        "",
        (
            ("vol", "data!", "volume key or path"),
            ("uuid", "bool", "return the pool uuid rather than pool name"),
        ),
    ),
    (
        "vol-resize",
        "volume_data",
        "resize a vol",
        "Resizes a storage volume. This is safe only for storage volumes not in use by an active "
        "guest.\nSee blockresize for live resizing.",
        (
            ("vol", "data!", "vol name, key or path"),
            ("capacity", "data!", "new capacity for the vol, as scaled integer (default bytes)"),
            ("pool", "string", "pool name or uuid"),
            ("allocate", "bool", "allocate the new capacity, rather than leaving it sparse"),
            ("delta", "bool", "use capacity as a delta to current size, rather than the new size"),
            ("shrink", "bool", "allow the resize to shrink the volume"),
        ),
    ),
    (
        "vol-upload",
        "volume_data",
        "upload file contents to a volume",
        "Upload file contents to a volume",
        (
            ("vol", "data!", "vol name, key or path"),
            ("file", "data!", "file"),
            ("pool", "string", "pool name or uuid"),
            ("offset", "int", "volume offset to upload to"),
            ("length", "int", "amount of data to upload"),
            ("sparse", "bool", "preserve sparseness of volume"),
            ("resize", "bool+", "make the volume longer where the file goes beyond its end"),
        ),
    ),
    (
        "vol-wipe",
        "volume_data",
        "wipe a vol",
        "Ensure data previously on a volume is not accessible to future reads",
        (
            ("vol", "data!", "vol name, key or path"),
            ("pool", "string", "pool name or uuid"),
            ("algorithm", "string", "perform selected wiping algorithm"),
        ),
    ),
)
