"""The commands that say what is to happen to a pool, or print one fact of it."""

from __future__ import annotations

from ...errors import CowshedError
from .parse import Call, Failed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ...pool.pool import Pool
    from .session import Session


def _do(session: Session, call: Call, verb: str, done: str, work: Callable[[Pool], object]) -> None:
    """Find the pool, do it, say so."""
    pool = session.pool(call)
    name = call.need("pool")
    try:
        work(pool)
    except CowshedError as error:
        raise Failed(f"Failed to {verb} pool {name}", error) from error
    session.extra(f"Pool {name} {done}\n")


def pool_autostart(session: Session, call: Call) -> None:
    pool = session.pool(call)
    name = call.need("pool")
    wanted = not call.flag("disable")
    mark = "mark" if wanted else "unmark"
    try:
        pool.set_autostart(wanted)
    except CowshedError as error:
        raise Failed(f"failed to {mark} pool {name} as autostarted", error) from error
    session.extra(f"Pool {name} {mark}ed as autostarted\n")


def building(call: Call) -> dict[str, bool]:
    return {"overwrite": call.flag("overwrite"), "no_overwrite": call.flag("no-overwrite")}


def pool_build(session: Session, call: Call) -> None:
    _do(session, call, "build", "built", lambda pool: pool.build(**building(call)))


def pool_start(session: Session, call: Call) -> None:
    # the pool is looked for first
    session.pool(call)
    call.exclusive("overwrite", "no-overwrite")
    _do(session, call, "start", "started", lambda pool: pool.start(build=call.flag("build"), **building(call)))


def pool_delete(session: Session, call: Call) -> None:
    _do(session, call, "delete", "deleted", lambda pool: pool.delete())


def pool_destroy(session: Session, call: Call) -> None:
    _do(session, call, "destroy", "destroyed", lambda pool: pool.destroy())


def pool_refresh(session: Session, call: Call) -> None:
    _do(session, call, "refresh", "refreshed", lambda pool: pool.refresh())


def pool_undefine(session: Session, call: Call) -> None:
    _do(session, call, "undefine", "has been undefined", lambda pool: pool.undefine())


def pool_dumpxml(session: Session, call: Call) -> None:
    show_document(session, call, session.pool(call).xml(inactive=call.flag("inactive")))


def show_document(session: Session, call: Call, text: str) -> None:
    """Print a document, or what --xpath finds in it. Raises PoolError."""
    expression = call.text("xpath")
    if expression is None:
        session.write(text)
        return
    from ...wire.libvirt.xpath import select

    found, complaint = select(text, expression, call.flag("wrap"))
    if complaint is not None:
        session.out.flush()
        session.out.raw(complaint)
    session.write(found)


def pool_name(session: Session, call: Call) -> None:
    session.write(f"{session.pool(call, by_name=False).name}\n")


def pool_uuid(session: Session, call: Call) -> None:
    session.write(f"{session.pool(call, by_uuid=False).uuid}\n")
