"""Storage pools and volumes without a daemon: libvirt's model inside the calling process.

    from cowshed import pool

    host = pool.Host()
    images = host.pool("default")
    disk = images.create_volume("<volume><name>web1.qcow2</name>…</volume>")

Names are loaded when they are first used. See docs/pools-design.md for the state on disk and who may do what at once.
"""
