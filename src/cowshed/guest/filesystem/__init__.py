"""File systems: one package or file each, in one table (table.py), on one interface (base.py)."""
