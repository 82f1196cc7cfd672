"""A qcow2 image that can be written: the layers of the write side put together, and changes of the whole image."""

from __future__ import annotations

from ....progress import QUIET
from .packed import Qcow2Packing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ....progress import Progress
    from ...facts import Snapshot
    from ...node import Node


class Qcow2Node(Qcow2Packing):
    """A writable qcow2 image. All hooks of the write side run with ``lock`` held."""

    def snapshot_create(self, name: str) -> Snapshot:
        from .snapshot import create

        with self.lock:
            return create(self, name)

    def snapshot_apply(self, ref: str) -> None:
        from .snapshot import apply

        with self.lock:
            apply(self, ref)

    def snapshot_delete(self, ref: str) -> None:
        from .snapshot import delete

        with self.lock:
            delete(self, ref)

    def resize(self, size: int, preallocation: str = "off", progress: Progress = QUIET) -> None:
        from .resize import resize

        with self.lock:
            resize(self, size, preallocation, progress)

    def change_backing(self, name: str | None, fmt: str | None) -> None:
        from .amend import change_backing

        with self.lock:
            change_backing(self, name, fmt)

    def amend(self, options: dict[str, Any], *, force: bool = False, progress: Progress = QUIET) -> None:
        from .amend import amend

        with self.lock:
            amend(self, options, progress)

    def bitmap_add(self, name: str, granularity: int | None = None, *, enabled: bool = True) -> None:
        from .bitmap_store import add

        with self.lock:
            self.settle_tracker()
            add(self, name, granularity, enabled)

    def bitmap_remove(self, name: str) -> None:
        from .bitmap_store import remove

        with self.lock:
            self.settle_tracker()
            remove(self, name)

    def bitmap_clear(self, name: str) -> None:
        from .bitmap_store import clear

        with self.lock:
            self.settle_tracker()
            clear(self, name)

    def bitmap_enable(self, name: str) -> None:
        from .bitmap_store import switch

        with self.lock:
            self.settle_tracker()
            switch(self, name, True)

    def bitmap_disable(self, name: str) -> None:
        from .bitmap_store import switch

        with self.lock:
            self.settle_tracker()
            switch(self, name, False)

    def bitmap_merge(self, target: str, source: Node, name: str) -> None:
        from .bitmap_store import merge

        with self.lock:
            self.settle_tracker()
            if isinstance(source, Qcow2Packing):
                source.settle_tracker()
            merge(self, target, source, name)

    def make_empty(self) -> bool:
        from .resize import make_empty

        with self.lock:
            return make_empty(self)

    def flush(self) -> None:
        """Metadata and data are durable when this returns. Raises HostError, NoSpaceError."""
        if self.read_only:
            return
        with self.lock:
            if self.failed is not None:
                raise self.failed
            self.commit()
            if self.has_data_file:
                self.data.flush()
            self.file.flush()

    def shutdown(self) -> None:
        if self.read_only or self.failed is not None:
            return
        if self.tracker is not None:
            self.tracker.store()
        self.flush()
