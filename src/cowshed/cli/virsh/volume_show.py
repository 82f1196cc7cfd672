"""The commands that show volumes, and ``vol-delete``."""

from __future__ import annotations

from ...errors import CowshedError
from .parse import Call, Failed
from .text import size, table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .session import Session


def vol_list(session: Session, call: Call) -> None:
    pool = session.pool(call)
    lines: list[tuple[str, ...]]
    try:
        if call.flag("details"):
            header: tuple[str, ...] = ("Name", "Path", "Type", "Capacity", "Allocation")
            lines = []
            for volume in pool.volumes():
                try:
                    info = volume.info()
                except CowshedError:
                    continue  # deleted since it was listed
                lines.append((volume.name, volume.path, info.type, size(info.capacity), size(info.allocation)))
        else:
            header = ("Name", "Path")
            lines = list(pool.volume_names())
    except CowshedError as error:
        raise Failed("Failed to list volumes", error) from error
    lines.sort(key=lambda line: (line[0].lower(), line[0]))
    session.write(table(header, lines, quiet=session.quiet))


def vol_info(session: Session, call: Call) -> None:
    volume = session.volume(call)
    physical = call.flag("physical")
    info = volume.info(physical=physical)
    lines = [
        ("Name", volume.name),
        ("Type", info.type),
        ("Capacity", f"{info.capacity} bytes" if call.flag("bytes") else size(info.capacity)),
        (
            "Physical" if physical else "Allocation",
            f"{info.allocation} bytes" if call.flag("bytes") else size(info.allocation),
        ),
    ]
    session.write("".join(f"{name + ':':<15} {value}\n" for name, value in lines))


def vol_dumpxml(session: Session, call: Call) -> None:
    from .pool_verbs import show_document

    show_document(session, call, session.volume(call).xml())


def vol_name(session: Session, call: Call) -> None:
    session.write(f"{session.volume(call, pool_option=None).name}\n")


def vol_key(session: Session, call: Call) -> None:
    session.write(f"{session.volume(call).key}\n")


def vol_path(session: Session, call: Call) -> None:
    session.write(f"{session.volume(call).path}\n")


def vol_pool(session: Session, call: Call) -> None:
    pool = session.volume(call, pool_option=None).pool
    session.write(f"{pool.uuid if call.flag('uuid') else pool.name}\n")


def vol_delete(session: Session, call: Call) -> None:
    volume = session.volume(call)
    name = call.need("vol")
    try:
        volume.delete(delete_snapshots=call.flag("delete-snapshots"), force=call.flag("force"))
    except CowshedError as error:
        raise Failed(f"Failed to delete vol {name}", error) from error
    session.extra(f"Vol {name} deleted\n")
