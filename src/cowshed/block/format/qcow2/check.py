"""Checking a qcow2 image, and mending what can be mended: references against reference counts, flags against counts.

Specification: qcow2.txt, all of it. What is told, and in which words, is what the field's scripts read.

How a repair survives a power cut: counts are raised and lowered in place only where no cluster that is in use can lose
protection by it; then comes a barrier, then flags. Refcount structures that are broken are made anew in free space and
switched to by one write of the header's first sector (``repair.py``).
"""

from __future__ import annotations

import errno

from ....errors import CowshedError, HostError
from ....progress import QUIET
from ...facts import CheckResult
from ...node import space_reused
from . import header as hd
from .census import Aborted, tell
from .check_counts import Counts
from .check_flags import Flags

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ....progress import Progress
    from .node import Qcow2Map


def check_image(image: Qcow2Map, fix: frozenset[str] = frozenset(), progress: Progress = QUIET) -> CheckResult:
    """Check ``image``; ``fix`` ⊆ {"leaks", "errors"} repairs (the image must be open for writing then).

    A check that can't be finished gives its result with ``error`` set; it doesn't raise for what is on the disk.
    """
    with image.lock:
        if not image.read_only:
            image.flush()
        return Checker(image, fix, progress).run()


class Checker(Counts, Flags):
    """One run of the check: walk, judge, mend, tell."""

    def run(self) -> CheckResult:
        result = self.result
        try:
            self._snapshot_table()
            self._refcounts()
            self._mend_snapshot_table()
        except Aborted as aborted:
            result.error = aborted.error
        except CowshedError as error:
            result.error = error
        finally:
            if self.changed:
                self._reload()
        result.corruptions += self.snapshot_damage
        if not result.error and (self.fix_leaks or self.fix_errors):
            self._clear_marks()
        return result

    def _reload(self) -> None:
        """What the node remembers of tables may be wrong now, and what a reader mapped too."""
        image: Any = self.image
        image.l2.clear()
        image.load_l1()
        if not image.read_only:
            image.forget_tables()
            image.load_l1()
        space_reused()

    def _clear_marks(self) -> None:
        """The counts are right now, so the image is clean; without corruptions left it is not corrupt either."""
        result, header = self.result, self.image.header
        marks = header.incompatible_features & (hd.INCOMPAT_DIRTY | hd.INCOMPAT_CORRUPT)
        if not marks or result.check_errors or header.version < 3:
            return
        if result.corruptions:
            marks &= ~hd.INCOMPAT_CORRUPT
            if not self.fix_errors:
                return
        header.incompatible_features &= ~marks
        image: Any = self.image
        image.file.flush()
        image.write_header_fixed()
        image.file.flush()
        if marks & hd.INCOMPAT_CORRUPT:
            image.signalled_corruption = False
            image.failed = None

    # -- counts and flags ---------------------------------------------------------------------------------------------

    def _refcounts(self) -> None:
        result = self.result
        self._count(self.fix_errors)
        before = result.corruptions, result.leaks, result.check_errors
        self._compare(False, False)
        if self.rebuild and self.fix_errors:
            self._rebuild(before[2])
        elif self.fix_leaks or self.fix_errors:
            if self.rebuild:
                tell(result, "ERROR need to rebuild refcount structures")
                raise Aborted(HostError("Input/output error", path=self.image.filename, errno=errno.EIO))
            if result.corruptions or result.leaks:
                result.corruptions, result.leaks, result.check_errors = before
                self._compare(self.fix_leaks, self.fix_errors)
                self.changed |= bool(self.ledger.dirty)
                self.ledger.flush()
                self._give_back()
        self._copied_flags()

    def _rebuild(self, check_errors: int) -> None:
        """Make the refcount structures anew and check them."""
        from .repair import NewRefcounts

        result = self.result
        corruptions, leaks = result.corruptions, result.leaks
        tell(result, "Rebuilding refcount structure")
        new = NewRefcounts(self.image, self.census)
        horizon = new.end
        while self.census.beyond < new.end:
            # the file will grow over clusters that entries refer to already: count these too, then place anew
            horizon *= 2
            self.result = CheckResult()
            self._count(False, horizon)
            self.result = result
            new = NewRefcounts(self.image, self.census)
        old, self.ledger = self.ledger, new.ledger
        header: Any = self.image.header
        kept = header.refcount_table_offset, header.refcount_table_clusters
        header.refcount_table_offset, header.refcount_table_clusters = new.table_offset, new.table_clusters
        try:
            result.corruptions = result.leaks = 0
            result.check_errors = check_errors
            self.rebuild = False
            self._count(False, new.end)
            if self.rebuild:
                tell(result, "ERROR rebuilt refcount structure is still broken")
            self._compare(True, False, counted=False)
        except BaseException:
            header.refcount_table_offset, header.refcount_table_clusters = kept
            self.ledger = old
            raise
        self.changed = True
        new.write()
        self._give_back()
        result.leaks_fixed += leaks
        result.corruptions_fixed += corruptions - result.corruptions

    # -- the snapshot table -------------------------------------------------------------------------------------------

    def _snapshot_table(self) -> None:
        from .repair import read_snapshot_table

        if self.image.header.nb_snapshots or self.image.header.snapshots_offset & (self.image.cluster_size - 1):
            read_snapshot_table(self)

    def _mend_snapshot_table(self) -> None:
        from .repair import write_snapshot_table

        if self.snapshot_damage and self.fix_errors:
            if self.changed:
                self._reload()
            write_snapshot_table(self)
            self.changed = True
            self.result.corruptions_fixed += self.snapshot_damage
            self.snapshot_damage = 0
