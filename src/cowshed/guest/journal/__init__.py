"""systemd's journal, read natively: file.py one file, reader.py all files of a directory in one order."""
