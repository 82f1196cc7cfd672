"""``virsh``: the storage and secret commands of libvirt's shell, on pools without a daemon."""
