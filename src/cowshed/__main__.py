"""``python -m cowshed``: the ``cowshed`` command of this interpreter."""

from __future__ import annotations

from cowshed.cli.main import main

if __name__ == "__main__":
    main()
