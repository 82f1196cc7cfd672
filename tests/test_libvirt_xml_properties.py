"""Any definition comes back from its document as it was; what was read once is written the same again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree

import judges
from cowshed.errors import PoolError
from cowshed.wire.libvirt.common import sanitize
from cowshed.wire.libvirt.definition import (
    Auth,
    Device,
    Element,
    Encryption,
    Permissions,
    PoolDef,
    SecretDef,
    VolumeDef,
    VolumeTarget,
)  # fmt: skip
from cowshed.wire.libvirt.kinds import KINDS
from cowshed.wire.libvirt.pool import format_pool, format_pool_state, parse_pool, parse_pool_state
from cowshed.wire.libvirt.secret import USAGES, format_secret, parse_secret
from cowshed.wire.libvirt.volume import FEATURES, TYPES, format_volume, parse_volume
from cowshed.wire.libvirt.writer import serialize

SCHEMAS = Path("/usr/share/libvirt/schemas")

# every character that XML 1.0 can say
TEXT = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters=[chr(n) for n in range(32)] + ["\ufffe", "\uffff"])
    | st.sampled_from("\t\n\r<>&'\" "),
    min_size=1,
    max_size=20,
)
NAMES = TEXT.filter(lambda text: "/" not in text and "\n" not in text)
PATHS = TEXT.map(lambda text: sanitize("/" + text))
UUIDS = st.none() | st.uuids().map(str)
SIZES = st.integers(0, (1 << 63) - 1)
TAGS = st.from_regex("[a-z][a-z0-9]{0,5}", fullmatch=True).map(lambda text: "x" + text)
ELEMENTS = st.recursive(
    st.builds(Element, TAGS, st.dictionaries(TAGS, TEXT, max_size=2), text=st.just("") | TEXT),
    lambda inner: st.builds(
        Element, TAGS, st.dictionaries(TAGS, TEXT, max_size=2), st.lists(inner, min_size=1, max_size=3)
    ),
    max_leaves=4,
)
PERMISSIONS = st.builds(
    Permissions,
    st.none() | st.integers(0, 0o777),
    st.integers(-1, (1 << 32) - 2),
    st.integers(-1, (1 << 32) - 2),
    st.none() | TEXT,
).map(lambda found: None if found == Permissions() else found)
REFERENCES = st.tuples(st.uuids().map(str), st.none()) | st.tuples(st.none(), TEXT)


@st.composite
def pools(draw: Any) -> PoolDef:
    definition = PoolDef(draw(st.sampled_from(list(KINDS))), draw(NAMES), draw(UUIDS))
    kind = KINDS[definition.type]
    source = definition.source
    if "host" in kind.source:
        source.hosts = draw(st.lists(st.tuples(TEXT, st.none() | st.integers(1, 65535)), min_size=1, max_size=3))
    if "device" in kind.source:
        devices = st.builds(Device, TEXT, st.none() | st.booleans())
        source.devices = draw(st.lists(devices, min_size="device" in kind.needs, max_size=3))
    if "dir" in kind.source:
        source.directory = draw(PATHS)
    if "name" in kind.source:
        source.name = draw(TEXT)
    if "adapter" in kind.source:
        source.adapter = Element("adapter", {"type": "scsi_host", "name": draw(TEXT)})
    if "initiator" in kind.source:
        source.initiator_iqn = draw(TEXT)
    if kind.formats:
        source.format = draw(st.sampled_from(kind.formats))
    if definition.type == "netfs" and source.format in ("auto", "nfs"):
        source.protocol_version = draw(st.none() | TEXT)
    if draw(st.booleans()):
        uuid, usage = draw(REFERENCES)
        source.auth = Auth(draw(st.sampled_from(["chap", "ceph"])), draw(TEXT), draw(st.none() | TEXT), uuid, usage)
    source.vendor, source.product = draw(st.none() | TEXT), draw(st.none() | TEXT)
    if definition.type in ("dir", "fs"):
        definition.cow = draw(st.none() | st.booleans())
    if not kind.network:
        made = None if kind.target is None else sanitize(f"{kind.target}{source.name}")
        definition.target = made or draw(PATHS)
        definition.permissions = draw(PERMISSIONS)
    definition.refresh_allocation = draw(st.sampled_from([None, "default", "capacity"]))
    places = [path for path in ("", "source", "target") if path != "target" or not kind.network]
    for place in places:
        definition.extra += [(place, element) for element in draw(st.lists(ELEMENTS, max_size=2))]
    return definition


@st.composite
def volumes(draw: Any) -> tuple[str, VolumeDef]:
    pool_type = draw(st.sampled_from(list(KINDS)))
    kind = KINDS[pool_type]
    definition = VolumeDef(draw(TEXT), draw(st.sampled_from(TYPES)), draw(st.none() | TEXT))
    definition.capacity, definition.allocation, definition.has_allocation = draw(SIZES), draw(SIZES), True

    def place(target: VolumeTarget, path: Any) -> VolumeTarget:
        target.path = draw(path)
        target.format = draw(st.sampled_from(kind.volume_formats)) if kind.volume_formats else None
        target.permissions = draw(PERMISSIONS)
        return target

    target = place(definition.target, st.none() | TEXT)
    target.compat = draw(st.sampled_from([None, "0.10", "1.1"]))
    target.cluster_size = draw(st.none() | st.integers(1, 1 << 40))
    if target.compat is not None:
        target.features = [name for name in FEATURES if draw(st.booleans())]
    if draw(st.booleans()):
        name = draw(st.sampled_from(["luks", "luks2", "qcow", "default"]))
        secrets = [("passphrase", *draw(REFERENCES)) for _ in range(draw(st.integers(0, 2)))]
        children = draw(st.lists(ELEMENTS, max_size=1))
        if name.startswith("luks") and draw(st.booleans()):
            children.insert(0, Element("cipher", {"name": draw(TEXT), "size": str(draw(st.integers(0, 512)))}))
        target.encryption = Encryption(name, secrets, Element("encryption", {"format": name}, children))
    if draw(st.booleans()):
        definition.backing = place(VolumeTarget(), TEXT)
    for where in ("", "target"):
        definition.extra += [(where, element) for element in draw(st.lists(ELEMENTS, max_size=2))]
    return pool_type, definition


@st.composite
def secrets(draw: Any) -> SecretDef:
    definition = SecretDef(draw(UUIDS))
    definition.ephemeral, definition.private = draw(st.booleans()), draw(st.booleans())
    definition.description = draw(st.none() | TEXT)
    definition.usage_type = draw(st.sampled_from([None, *USAGES]))
    if definition.usage_type is not None:
        definition.usage_id = draw(TEXT)
    definition.extra = [("", element) for element in draw(st.lists(ELEMENTS, max_size=2))]
    return definition


# the order in which what is unknown was found: that of the document, which we write element by element
def _sorted(extra: list[tuple[str, Element]]) -> list[tuple[str, str]]:
    return sorted((path, serialize(element)) for path, element in extra)


def _same(one: Any, other: Any) -> None:
    assert _sorted(one.extra) == _sorted(other.extra)
    one.extra = other.extra = []
    assert one == other


@settings(max_examples=120, deadline=None)
@given(pools())
def test_pools_come_back(definition: PoolDef) -> None:
    text = format_pool(definition)
    etree.fromstring(text.encode())
    again = parse_pool(text.encode())
    assert format_pool(again) == text
    state = parse_pool_state(format_pool_state(definition))
    _same(state, again)
    _same(parse_pool(text), definition)


@settings(max_examples=120, deadline=None)
@given(volumes())
def test_volumes_come_back(case: tuple[str, VolumeDef]) -> None:
    pool_type, definition = case
    text = format_volume(definition)
    assert format_volume(parse_volume(text, pool_type)) == text
    # libxml2's quoting says the same
    again = parse_volume(format_volume(definition, libxml2=True).encode(), pool_type)
    assert format_volume(again) == text
    _same(again, definition)


@settings(max_examples=80, deadline=None)
@given(secrets())
def test_secrets_come_back(definition: SecretDef) -> None:
    text = format_secret(definition)
    assert format_secret(parse_secret(text)) == text
    _same(parse_secret(text), definition)


# -- what the schemas allow, drawn whole, is written so that they allow it

PLAIN = st.from_regex("[a-zA-Z0-9][a-zA-Z0-9_.+-]{0,12}", fullmatch=True)
ABSOLUTE = PLAIN.map(lambda name: f"/{name}/é &<>'\"")


def _schema(name: str) -> etree.RelaxNG:
    judges.need("libvirtd")
    return etree.RelaxNG(etree.parse(str(SCHEMAS / f"{name}.rng")))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_plain_definitions_are_valid(data: Any) -> None:
    draw = data.draw
    pool = draw(pools())
    # what the schema says of names, and libvirt itself does not
    pool.name, pool.extra = draw(PLAIN), []
    source = pool.source
    source.hosts = [(draw(st.from_regex("[a-z0-9.-]{1,9}", fullmatch=True)), port) for _, port in source.hosts]
    source.devices = [Device(draw(ABSOLUTE), device.part_separator) for device in source.devices]
    if pool.type == "iscsi-direct":
        source.devices = [Device("iqn.2024-01.org.test:t1")]
    single = pool.type in ("fs", "disk", "iscsi", "zfs")
    source.devices = source.devices[:1] if single else source.devices
    if single and pool.type != "zfs" and not source.devices:
        source.devices = [Device("/dev/a")]
    if pool.type not in ("iscsi", "iscsi-direct", "rbd"):
        source.auth = None
    elif source.auth is not None:
        source.auth.secret_type = None
    # libvirt writes them behind the format, where the schemas of these types do not look for them
    source.vendor = source.product = None
    if pool.type != "rbd":
        pool.refresh_allocation = None
    if pool.target is not None and KINDS[pool.type].target is None:
        pool.target = draw(ABSOLUTE)
    elif pool.target is not None:
        source.name, pool.target = "vg", "/dev/vg"
    _valid("storagepool", format_pool(pool))
    secret = draw(secrets())
    secret.extra = []
    if secret.usage_type is not None:
        secret.usage_id = draw(ABSOLUTE if secret.usage_type == "volume" else PLAIN)
    _valid("secret", format_secret(secret))
    _, volume = draw(volumes())
    volume.extra, volume.name = [], draw(PLAIN)
    volume.type = volume.type if volume.type != "ploop" else "file"
    for target in (volume.target, volume.backing):
        if target is not None:
            target.path = draw(ABSOLUTE)
    volume.target.encryption = None
    _valid("storagevol", format_volume(volume))


_SCHEMAS: dict[str, etree.RelaxNG] = {}


def _valid(name: str, text: str) -> None:
    grammar = _SCHEMAS.setdefault(name, _SCHEMAS.get(name) or _schema(name))
    assert grammar.validate(etree.fromstring(text.encode())), f"{text}\n{grammar.error_log}"


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60) | TEXT, st.integers(0, 400), st.integers(0, 40))
def test_damaged_documents_end_in_an_error_of_ours_or_are_read(junk: bytes | str, at: int, cut: int) -> None:
    text = (
        b"<?xml version='1.0'?>\n<pool type='fs'><name>x</name><uuid>2ec115d7-3a88-3ceb-bc12-0ac909a6fd87</uuid>"
        b"<source><device path='/a'/><format type='ext4'/></source>\n<target><path>/t&amp;</path><permissions>"
        b"<mode>0755</mode><owner>1</owner></permissions></target></pool>\n"
    )
    noise = junk.encode() if isinstance(junk, str) else junk
    damaged = text[:at] + noise + text[at + cut :]
    try:
        definition = parse_pool(damaged)
    except PoolError as error:
        assert str(error)
    else:
        # what was read can be written, and says the same again
        assert format_pool(parse_pool(format_pool(definition))) == format_pool(definition)
