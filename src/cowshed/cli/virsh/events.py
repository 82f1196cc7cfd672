"""``pool-event`` and ``secret-event``."""

from __future__ import annotations

from .parse import Call, Failed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...pool.events import Event
    from .session import Session

#: seconds: what milliseconds in an int have room for
_LONGEST = ((1 << 31) - 1) // 1000

#: kind of event -> its name in virsh
_POOL = {"lifecycle": "lifecycle", "refresh": "refresh"}
_SECRET = {"secret": "lifecycle", "secret-value": "value-changed"}


def pool_event(session: Session, call: Call) -> None:
    _watch(session, call, _POOL, "storage pool", "pool")


def secret_event(session: Session, call: Call) -> None:
    _watch(session, call, _SECRET, "secret", "secret")


def _watch(session: Session, call: Call, names: dict[str, str], noun: str, option: str) -> None:
    if call.flag("list"):
        session.write("".join(f"{name}\n" for name in names.values()))
        return
    wanted = call.text("event")
    if wanted is None:
        raise Failed("either --list or --event <type> is required")
    if wanted not in names.values():
        raise Failed(f"unknown event type {wanted}")
    timeout = call.number("timeout", largest=(1 << 32) - 1)
    if timeout is not None and not 0 < timeout <= _LONGEST:
        raise Failed(f"Numeric value '{timeout}' for <timeout> option is malformed or out of range")
    uuid: str | None = None
    if option in call.values:
        if option == "pool":
            uuid = session.pool(call).uuid
        else:
            from .secrets import find_secret

            uuid = find_secret(session, call).uuid

    count = 0
    ending = "event loop timed out\n"
    try:
        for event in session.host.events(timeout=timeout):
            if names.get(event.kind) != wanted or (uuid is not None and event.uuid != uuid):
                continue
            count += 1
            session.write(_line(event, wanted, noun, call.flag("timestamp")))
            session.out.flush()
            if not call.flag("loop"):
                ending = ""
                break
    except KeyboardInterrupt:
        ending = "event loop interrupted\n"
    session.write(f"{ending}events received: {count}\n")
    if not count:
        raise Failed


def _line(event: Event, name: str, noun: str, timestamp: bool) -> str:
    stamp = ""
    if timestamp:
        import time

        millis = int(event.time * 1000)
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(millis // 1000)) + f".{millis % 1000:03}+0000: "
    what = f": {event.event}" if name == "lifecycle" else ""
    subject = event.uuid if noun == "secret" else event.name
    return f"{stamp}event '{name}' for {noun} {subject}{what}\n"
