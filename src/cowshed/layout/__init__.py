"""What divides a disk: partition tables and LVM metadata, read from and written to nodes of the block engine."""
