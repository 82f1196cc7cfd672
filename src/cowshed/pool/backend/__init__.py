"""Kinds of pools: one file each, in one table (table.py)."""
