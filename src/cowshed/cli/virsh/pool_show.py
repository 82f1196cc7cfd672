"""``pool-list`` and ``pool-info``."""

from __future__ import annotations

from ...errors import MissingPoolError
from .parse import Call, Failed
from .text import size, table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...pool.pool import Pool
    from .session import Session


def yes(answer: bool) -> str:
    return "yes" if answer else "no"


def pool_list(session: Session, call: Call) -> None:
    kinds = call.text("type")
    call.exclusive("all", "inactive")
    call.exclusive("details", "uuid")
    call.exclusive("details", "name")
    wanted = None
    if kinds is not None:
        from ...pool.backend.table import KINDS
        from .shell import commas

        wanted = commas(kinds)
        for kind in wanted:
            if kind not in KINDS:
                raise Failed(f"Invalid pool type '{kind}'")
    pools = []
    for pool in session.host.pools():
        if wanted is not None and pool.type not in wanted:
            continue
        try:
            active, persistent = pool.active, pool.persistent
        except MissingPoolError:
            continue  # gone since it was listed
        if not call.flag("all") and active == call.flag("inactive"):
            continue
        if not _either(call, "persistent", "transient", persistent):
            continue
        if not _either(call, "autostart", "no-autostart", pool.autostart):
            continue
        pools.append((pool, active))
    pools.sort(key=lambda row: (row[0].name.lower(), row[0].name))

    if call.flag("uuid") or call.flag("name"):
        for pool, _ in pools:
            parts = [pool.uuid or ""] * call.flag("uuid") + [f"{pool.name:<20}"] * call.flag("name")
            session.write(" ".join(parts) + "\n")
    elif call.flag("details"):
        header = ("Name", "State", "Autostart", "Persistent", "Capacity", "Allocation", "Available")
        rows = []
        for pool, _ in pools:
            try:
                rows.append(_details(pool))
            except MissingPoolError:
                continue
        session.write(table(header, rows, quiet=session.quiet))
    else:
        lines = [(pool.name, "active" if active else "inactive", yes(pool.autostart)) for pool, active in pools]
        session.write(table(("Name", "State", "Autostart"), lines, quiet=session.quiet))


def _either(call: Call, one: str, other: str, answer: bool) -> bool:
    """Two filters that exclude each other; neither, or both, mean all."""
    return call.flag(one) == call.flag(other) or call.flag(one) == answer


def _details(pool: Pool) -> tuple[str, ...]:
    info = pool.info()
    figures = ("-", "-", "-")
    if info.state in ("running", "degraded"):
        figures = (size(info.capacity), size(info.allocation), size(info.available))
    return (pool.name, info.state, yes(pool.autostart), yes(pool.persistent), *figures)


def pool_info(session: Session, call: Call) -> None:
    pool = session.pool(call)
    info = pool.info()
    lines = [
        ("Name", pool.name),
        ("UUID", pool.uuid or ""),
        ("State", info.state),
        ("Persistent", yes(pool.persistent)),
        ("Autostart", yes(pool.autostart)),
    ]
    if info.state in ("running", "degraded"):
        show = str if call.flag("bytes") else size
        lines += [("Capacity", show(info.capacity)), ("Allocation", show(info.allocation))]
        lines += [("Available", show(info.available))]
        if session.for_people:
            lines += [("Promised", show(info.promised))]
    session.write("".join(f"{name + ':':<15} {value}\n" for name, value in lines))
