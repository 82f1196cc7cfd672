"""Hives of the Windows registry, read and changed natively.

store.py bytes with changes kept beside them, hive.py nodes and values, change.py what is written, text.py names,
file.py hives in a guest.
"""
