"""Files inside a disk, without an appliance: partitions, volumes and file systems read and edited in this process.

Names are loaded when they are first used. See docs/guest-design.md.
"""
