"""libvirt's XML: documents into definitions and back, without I/O."""
