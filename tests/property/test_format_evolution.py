"""How the format may grow: unknown trailing fields survive, and what cannot be ignored is refused.

I16 of the format's design, and section 18 of docs/format.md, for streamd and for the rescue script.
"""

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from golden.forge import Forged, forge, header_fields
from golden.invalid import segment_with
from golden.materials import (
    ADMIN,
    ADMIN_KEY,
    ADMIN_PUBLIC,
    DOMAIN,
    KEK,
    VAULT,
    WRITER,
    WRITER_PUBLIC,
    fixed,
    host_key,
)
from golden.specimens import CHAIN, META, SOURCE, specimens
from hypothesis import given
from hypothesis import strategies as st
from rescue_script import load
from vaultbuilder import VaultBuilder

from streamd.errors import FormatUnsupported, VaultDamaged
from streamd.format import checkpoint, chunklist, control, crypto, envelope, frame, ring, segment
from streamd.format.control import Condemned, Finalised
from streamd.format.envelope import Kind
from streamd.format.keys import KeySource, index_source
from streamd.format.vault_config import Certificate, VaultConfig, check_supported, decode_signed
from streamd.maintenance import expire
from streamd.model.entry import Dirent, FileVersion, SourceInfo
from streamd.model.record import Gap, Mark, Op, Record, StateSum
from streamd.vault.state_reader import StateReader
from streamd.vault.vault import open_vault

rescue = load()
encode = msgspec.msgpack.encode
INDEX_KEY = CHAIN.domain_keys.index_key
more = st.lists(
    st.one_of(st.none(), st.integers(0, 2**32), st.binary(max_size=9), st.text(max_size=5),
              st.lists(st.integers(0, 9), max_size=3)),
    min_size=1, max_size=3,
)  # fmt: skip
VERSION = [1, 0o644, 0, 0, b"u", b"g", 1, 2, 3, 5, 1, 0, b"", [[b"user.a", b"b"]], 1, 0]
CONTENT = [[bytes(32), 5]]


def plain_segment(extra: list[Any], records: list[Any]) -> bytes:
    """Return a segment whose every row is longer than we know, and whose header has unknown keys."""
    fields = header_fields(ks=[META.source], src=[SOURCE], t=5, t1=9, e=1, s=0, p=bytes(32))
    source = [*msgspec.msgpack.decode(encode(META.source)), *extra]
    return forge(
        b"J",
        fields | {"ks": [source], "zz": extra, "later": "x"},
        [Forged("j", encode([[*record, *extra] for record in records]), META.secret)],
    )


@given(more)
def test_a_segment_with_longer_rows_and_unknown_keys_reads_the_same(extra: list[Any]) -> None:
    rows = [[0, 0, 0, b"k", b"v"], [1, 7, 0, b"k", b""]]
    data = plain_segment(extra, rows)
    read = segment.decode_segment(data, WRITER_PUBLIC)
    assert read.records(CHAIN.secret_for) == [Record(*row) for row in rows]
    theirs = rescue.Segment(data, [WRITER_PUBLIC])
    secret = lambda _: META.secret  # noqa: E731 - the only key there is
    assert theirs.records(secret) == [tuple(row) for row in rows]


@given(more)
def test_a_checkpoint_with_longer_rows_reads_the_same(extra: list[Any]) -> None:
    page = [b"k", fixed("page"), 64]
    marks = [[WRITER, 1, 2, bytes(32), *extra]]
    body = [
        SOURCE,
        1,
        marks,
        [bytes(32), 64, *extra],
        crypto.digest(page[1]),
        [
            [*page, *extra],
        ],
        *extra,
    ]
    fields = header_fields(ks=[META.source], src=[SOURCE])
    data = forge(b"C", fields, [Forged("c", encode(body), META.secret)])
    root = checkpoint.decode_checkpoint(data, WRITER_PUBLIC, CHAIN.secret_for)
    assert (root.source, root.state.key_count, root.pages[0].row_count) == (SOURCE, 64, 64)
    theirs = rescue.read_checkpoint(data, [WRITER_PUBLIC], lambda _: META.secret)
    assert theirs[0] == SOURCE
    assert theirs[5] == [tuple(page)]


@given(more)
def test_lists_frame_tables_and_pages_may_be_longer(extra: list[Any]) -> None:
    for kind, body, decode, expected in (
        (b"G", [4, [], ["a"]], control.decode_condemned, Condemned(4, (), ("a",))),
        (b"F", [4, ["a"], ["b"]], control.decode_finalised, Finalised(4, ("a",), ("b",))),
    ):
        forged = [Forged("g", encode([*body, *extra]), INDEX_KEY)]
        data = forge(kind, header_fields(g=4), forged)
        assert decode(data, WRITER_PUBLIC, CHAIN.secret_for) == expected
    columns = [1, *[b"\x00\x00\x00\x00"] * 2, b"\x15\0\0\0", b"\x05\0\0\0", b"\x00",
               b"\x01\0\0\0", bytes(32), b"\x05\0\0\0"]  # fmt: skip
    table = encode([*columns, *extra])
    assert frame.decode_table(table, 1).chunk_count == 1
    assert len(rescue.frame_table(table, 1, 21)) == 1
    listed = encode([[bytes(32), 5, *extra]])
    assert chunklist.decode_page(listed)[0].size == 5
    assert rescue.read_page(listed, rescue.LIST_PAGE) == [(bytes(32), 5)]


@given(more)
def test_values_may_be_longer(extra: list[Any]) -> None:
    version = encode([*VERSION, [[*CONTENT[0], *extra]], b"", 0, *extra])
    ours = msgspec.msgpack.decode(version, type=FileVersion)
    theirs = rescue.read_version(version)
    assert (ours.size, ours.content[0].size, ours.xattrs) == (5, 5, ((b"user.a", b"b"),))
    assert (theirs.size, theirs.content, theirs.xattrs) == (
        5,
        [(bytes(32), 5)],
        [(b"user.a", b"b")],
    )
    for kind, row in (
        (Dirent, [7, 1]), (SourceInfo, ["n", [b"/p"]]), (Gap, [1, 2, "r", b"s"]),
        (Mark, ["l", "crash", 3]), (StateSum, [bytes(32), 1]),
    ):  # fmt: skip
        assert msgspec.msgpack.decode(encode([*row, *extra]), type=kind) == msgspec.msgpack.decode(
            encode(row), type=kind
        )


@given(more)
def test_rings_and_signed_documents_may_have_more_keys(extra: list[Any]) -> None:
    content = msgspec.to_builtins(
        ring.RingContent(private=host_key().private, public=host_key().public),
        builtin_types=(bytes,),
    )
    content["private"]["zz"] = content["public"]["later"] = content["more"] = extra
    source = KeySource(1, 0, 4, 1, bytes(8), b"")
    fields = header_fields(ks=[source], d=b"", w=b"")
    data = forge(b"K", fields, [Forged("k", encode(content), KEK)], signer=ADMIN)
    assert ring.decode_ring(data, KEK).private.admin == ADMIN_KEY
    assert rescue.read_ring(data, VAULT, KEK)[0]["admin"] == ADMIN_KEY


def signed(body: dict[str, Any]) -> bytes:
    raw = json.dumps(body).encode()
    sig = crypto.sign(ADMIN_KEY, b"streamd/v1/json|" + raw).hex().encode()
    return b'{"later": [1], "sig": "' + sig + b'",\n "body" : ' + raw + b" }"


def config_body(**change: Any) -> dict[str, Any]:
    return json.loads(specimens()["config-1.json"].data)["body"] | change


def test_signed_documents_ignore_unknown_keys_and_the_order_around_the_body() -> None:
    config = signed(config_body(later={"x": 1}))
    assert decode_signed(config, ADMIN_PUBLIC, VaultConfig).number == 1
    assert rescue.read_config(config, ADMIN_PUBLIC)["number"] == 1
    body = json.loads(specimens()["certificate.json"].data)["body"] | {"later": None}
    assert decode_signed(signed(body), ADMIN_PUBLIC, Certificate).host == "vector.example"
    assert rescue.read_certificate(signed(body), ADMIN_PUBLIC)["host"] == "vector.example"


READERS: list[Callable[[bytes], object]] = [
    lambda data: decode_signed(data, ADMIN_PUBLIC, VaultConfig),
    lambda data: rescue.read_config(data, ADMIN_PUBLIC),
]


@pytest.mark.parametrize("reader", READERS, ids=["streamd", "rescue"])
@pytest.mark.parametrize(
    "change", [{"major": 2}, {"format": "other"}, {"major": 2, "number": "of another type"}]
)
def test_another_format_is_refused_and_not_taken_for_damage(
    reader: Callable[[bytes], object], change: dict[str, Any]
) -> None:
    with pytest.raises((FormatUnsupported, rescue.Unsupported)):
        reader(signed(config_body(**change)))


@pytest.mark.parametrize("operation", ["read", "write", "maintain"])
def test_an_unknown_mandatory_feature_forbids_its_kind_of_operation(operation: str) -> None:
    features = {"read": [], "write": [], "maintain": [], operation: ["parity"]}
    config = decode_signed(signed(config_body(features=features)), ADMIN_PUBLIC, VaultConfig)
    for kind in ("read", "write", "maintain"):
        wanted = getattr(config.features, kind)
        if kind == operation:
            with pytest.raises(FormatUnsupported, match="parity"):
                check_supported(config, wanted)
        else:
            check_supported(config, wanted)
    if operation == "read":
        with pytest.raises(rescue.Unsupported):
            rescue.read_config(signed(config_body(features=features)), ADMIN_PUBLIC)
    else:
        rescue.read_config(signed(config_body(features=features)), ADMIN_PUBLIC)


async def vault_with(**features: list[str]) -> VaultBuilder:
    """Return a vault whose configuration has these mandatory features."""
    builder = VaultBuilder()
    wanted = msgspec.structs.replace(builder.config.features, **features)
    builder.config = msgspec.structs.replace(builder.config, features=wanted)
    await builder.install()
    return builder


@pytest.mark.asyncio
async def test_a_vault_that_asks_for_more_than_we_can_is_not_opened_and_not_thinned() -> None:
    builder = await vault_with(read=("holograms",))
    with pytest.raises(FormatUnsupported, match="holograms"):
        await open_vault(builder.store, builder.host_key)
    builder = await vault_with(maintain=("parity",))
    vault = await open_vault(builder.store, builder.host_key)  # reading is allowed

    class Site:
        pass

    site = Site()
    site.vault = vault
    with pytest.raises(FormatUnsupported, match="parity"):
        await expire.run(site, {}, default=None)


async def with_rows(builder: VaultBuilder, key: bytes, value: bytes) -> None:
    """Assert that the state has this value, byte by byte."""
    with await StateReader(builder.vault).state_at("web", 2**62) as state:
        assert state.get(key) == value


@pytest.mark.asyncio
async def test_unknown_fields_of_a_value_survive_replay_and_the_next_checkpoint() -> None:
    """Values are carried as the bytes they are: an old streamd loses nothing of a newer one."""
    builder = VaultBuilder()
    web = builder.source("web", b"/srv")
    key, value = b"f" + bytes(7) + b"\x09", encode([*VERSION, CONTENT, b"", 0, "new", {"x": 1}])
    web.set(key, value)
    await builder.commit()
    await with_rows(builder, key, value)
    await web.checkpoint()
    await with_rows(builder, key, value)


@pytest.mark.asyncio
@pytest.mark.parametrize("op", [Op.PATCH, 11, 200])
async def test_an_operation_that_may_change_the_state_is_refused_when_it_is_unknown(
    op: int,
) -> None:
    builder = VaultBuilder()
    web = builder.source("web", b"/srv")
    other = builder.source("other", b"/opt")
    web.directory(b"/srv")
    other.directory(b"/opt")
    builder.add(web, op, b"k", b"v")
    await builder.commit(sums=False)
    with pytest.raises(FormatUnsupported):
        await StateReader(builder.vault).state_at("web", 2**62)
    (await StateReader(builder.vault).state_at("other", 2**62)).close()
    state = rescue.State(0, (), rescue.Report())
    with pytest.raises(rescue.Unsupported):
        state.apply(op, b"k", b"v", "here")


def test_an_object_of_an_unknown_kind_does_not_pass_for_a_known_one() -> None:
    data = forge(b"Z", header_fields(), [])
    for kind in Kind:
        with pytest.raises(VaultDamaged):
            envelope.parse(data, kind)
    assert index_source(DOMAIN).role == 3
    assert segment_with([])
