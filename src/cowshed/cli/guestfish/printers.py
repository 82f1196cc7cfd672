"""What commands return, printed: one printer a kind of result."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any

    from ..output import Output

    Value = str | bytes | int
    Struct = Sequence[tuple[str, Value]]


def text_of(value: Value) -> str:
    """As text; bytes that are no text come out of `Output` as they went in."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    return str(value)


def _line(out: Output, value: Value) -> None:
    out.write(text_of(value) + "\n")


def _octal(out: Output, value: int) -> None:
    out.write(f"0{value:o}\n" if value else "0\n")


def _hex(out: Output, value: int) -> None:
    out.write(f"{value:#x}\n" if value else "0\n")


def _bool(out: Output, value: bool) -> None:
    out.write("true\n" if value else "false\n")


def _buffer(out: Output, value: bytes) -> None:
    out.write(text_of(value))


def _list(out: Output, values: Iterable[Value]) -> None:
    for value in values:
        out.write(text_of(value) + "\n")


def _hash(out: Output, values: Mapping[Value, Value] | Iterable[tuple[Value, Value]]) -> None:
    pairs = values.items() if hasattr(values, "items") else values
    for name, value in pairs:
        out.write(f"{text_of(name)}: {text_of(value)}\n")


def _struct(out: Output, fields: Struct, indent: str = "") -> None:
    for name, value in fields:
        out.write(f"{indent}{name}: {text_of(value)}\n")


def _structs(out: Output, items: Iterable[Struct]) -> None:
    for index, fields in enumerate(items):
        out.write(f"[{index}] = {{\n")
        _struct(out, fields, "  ")
        out.write("}\n")


def _none(out: Output, value: object) -> None:
    return None


#: kind of result -> its printer
PRINTERS: dict[str, Callable[[Output, Any], None]] = {
    "none": _none,
    "int": _line,
    "octal": _octal,
    "hex": _hex,
    "bool": _bool,
    "string": _line,
    "buffer": _buffer,
    "list": _list,
    "hash": _hash,
    "struct": _struct,
    "structs": _structs,
}
