"""Documents held against libvirt's own RelaxNG schemas, where they are installed."""

from __future__ import annotations

import os

from ...errors import SchemaError

_SCHEMAS = "/usr/share/libvirt/schemas"


def validate(text: str, kind: str) -> None:
    """Hold a document against libvirt's schema, ``kind`` being storagepool, storagevol or secret. Raises SchemaError
    when it does not fit, or when the schemas are not installed; what is no XML is left to the reader to complain of."""
    from lxml import etree

    path = os.path.join(os.environ.get("COWSHED_SCHEMAS", _SCHEMAS), f"{kind}.rng")
    if not os.path.exists(path):
        raise SchemaError(f"Unable to validate doc against {path}\nno such file", hint="libvirt's schemas are needed")
    parser = etree.XMLParser(resolve_entities=False, load_dtd=False, no_network=True)
    try:
        document = etree.fromstring(text.encode("utf-8", "surrogateescape"), parser)
    except etree.XMLSyntaxError:
        return
    schema = etree.RelaxNG(etree.parse(path))
    if not schema.validate(document):
        lines = "\n".join(entry.message for entry in schema.error_log)
        raise SchemaError(f"Unable to validate doc against {path}\n{lines}\n")
