"""File data that is not on the device yet."""

from ...spool import Spool

__all__ = ["Spool"]
