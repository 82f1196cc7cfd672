"""``virsh``: libvirt's storage and secret commands, without its daemon."""
