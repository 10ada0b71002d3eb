"""Every object name of a vault, in one place.

    v/config-<n:06d>.json              vault configuration, signed; the highest n wins
    k/ring-<gen:04x>-<id>              key ring        k/slot-<id>   key slots
    w/<writer>/cert-<n:04x>.json       writer certificates, signed by the admin key
    README.txt                         for a person who finds this
    v/rescue-<sha256>.py               restores without streamd     v/format-<sha256>.md
    d/<domain>/e/<writer>/<epoch:08x>             epoch record
    d/<domain>/j/<writer>/<epoch:08x>/<seq:012x>  journal segment, dense from 0
    d/<domain>/p/<xx>/<id>                        pack, named by the hash of its bytes
    d/<domain>/c/<source>/<ms:013x>-<id>          checkpoint root
    d/<domain>/h/<source>/<level:1x>/<ms:013x>-<ms:013x>-<id>   history run, from - to
    d/<domain>/x/<gen:08x>/<shard:02x>-<id>       shard of an index generation
    d/<domain>/x/<gen:08x>/done                   its manifest, which makes it complete
    d/<domain>/g/<gen:08x>  and  .fin             condemn list and its final list

Numbers are hexadecimal and zero padded: lexical order is numeric order. Ids are base32.
"""

from typing import Final, NamedTuple

from streamd.model.ids import (
    CHUNK_ID_SIZE,
    ID_SIZE,
    DomainId,
    SourceId,
    WriterId,
    from_text,
    to_text,
)

README: Final = "README.txt"
CONFIG_PREFIX: Final = "v/config-"
DOCUMENT_PREFIX: Final = "v/"  # of the rescue script and the specification, for people
SLOT_PREFIX: Final = "k/slot-"
RING_PREFIX: Final = "k/ring-"
UNIQUE_SIZE: Final = 8  # random part of names that need one: checkpoints, rings, slots
PACK_SPREAD: Final = 2  # characters of the id that spread packs over directories and partitions


class JournalPosition(NamedTuple):
    """One segment of a writer's journal; positions compare in journal order."""

    epoch: int
    seq: int


class HistorySpan(NamedTuple):
    """What the name of a history run says; times in µs, rounded down to ms in names."""

    source: SourceId
    level: int
    start_us: int
    end_us: int


class IndexName(NamedTuple):
    """What a name below x/ says; `shard` is None for the manifest."""

    generation: int
    shard: int | None


def config_name(number: int) -> str:
    return f"{CONFIG_PREFIX}{number:06d}.json"


def ring_name(generation: int, unique: bytes) -> str:
    return f"{RING_PREFIX}{generation:04x}-{to_text(unique)}"


def parse_ring_name(name: str) -> int | None:
    """Return the edition if `name` has the form of a key ring's name, else None."""
    edition, _, unique = name.removeprefix(RING_PREFIX).partition("-")
    if not name.startswith(RING_PREFIX) or _id(unique, UNIQUE_SIZE) is None:
        return None
    return _hex(edition, 4)


def slot_name(slot: bytes) -> str:
    return SLOT_PREFIX + to_text(slot)


def certificate_name(writer: WriterId, number: int) -> str:
    return f"{certificate_prefix(writer)}{number:04x}.json"


def certificate_prefix(writer: WriterId) -> str:
    return f"w/{to_text(writer)}/cert-"


def domain_prefix(domain: DomainId) -> str:
    return f"d/{to_text(domain)}/"


def epoch_prefix(domain: DomainId, writer: WriterId) -> str:
    return f"{domain_prefix(domain)}e/{to_text(writer)}/"


def epoch_name(domain: DomainId, writer: WriterId, epoch: int) -> str:
    return f"{epoch_prefix(domain, writer)}{epoch:08x}"


def journal_prefix(domain: DomainId, writer: WriterId) -> str:
    return f"{domain_prefix(domain)}j/{to_text(writer)}/"


def segment_name(domain: DomainId, writer: WriterId, position: JournalPosition) -> str:
    return f"{journal_prefix(domain, writer)}{position.epoch:08x}/{position.seq:012x}"


def parse_segment_name(name: str) -> JournalPosition | None:
    """Return the position if `name` has the form of a segment's name, else None."""
    parts = name.split("/")
    if len(parts) != 6 or parts[0] != "d" or parts[2] != "j":  # noqa: PLR2004 - d/D/j/W/E/S
        return None
    position = _hex(parts[4], 8), _hex(parts[5], 12)
    if position[0] is None or position[1] is None:
        return None
    return JournalPosition(position[0], position[1])


def parse_epoch_name(name: str) -> int | None:
    """Return the epoch if `name` has the form of an epoch record's name, else None."""
    parts = name.split("/")
    if len(parts) != 5 or parts[0] != "d" or parts[2] != "e":  # noqa: PLR2004 - d/D/e/W/E
        return None
    return _hex(parts[4], 8)


def pack_prefix(domain: DomainId) -> str:
    return f"{domain_prefix(domain)}p/"


def pack_name(domain: DomainId, pack_hash: bytes) -> str:
    text = to_text(pack_hash)
    return f"{pack_prefix(domain)}{text[:PACK_SPREAD]}/{text}"


def parse_pack_name(name: str) -> bytes | None:
    """Return the hash if `name` has the form of a pack's name, else None."""
    parts = name.split("/")
    if len(parts) != 5 or parts[0] != "d" or parts[2] != "p":  # noqa: PLR2004 - d/D/p/XX/ID
        return None
    if parts[3] != parts[4][:PACK_SPREAD]:
        return None
    return _id(parts[4], CHUNK_ID_SIZE)


def checkpoint_prefix(domain: DomainId, source: SourceId | None = None) -> str:
    prefix = f"{domain_prefix(domain)}c/"
    return prefix if source is None else f"{prefix}{to_text(source)}/"


def checkpoint_name(domain: DomainId, source: SourceId, at_us: int, unique: bytes) -> str:
    return f"{checkpoint_prefix(domain, source)}{at_us // 1000:013x}-{to_text(unique)}"


def parse_checkpoint_name(name: str) -> tuple[SourceId, int] | None:
    """Return (source, milliseconds) if `name` has the form of a checkpoint's name, else None."""
    parts = name.split("/")
    if len(parts) != 5 or parts[0] != "d" or parts[2] != "c":  # noqa: PLR2004 - d/D/c/S/T-ID
        return None
    time, _, unique = parts[4].partition("-")
    source, at_ms = _id(parts[3], ID_SIZE), _hex(time, 13)
    if source is None or at_ms is None or _id(unique, UNIQUE_SIZE) is None:
        return None
    return SourceId(source), at_ms


def history_prefix(domain: DomainId, source: SourceId | None = None) -> str:
    prefix = f"{domain_prefix(domain)}h/"
    return prefix if source is None else f"{prefix}{to_text(source)}/"


def history_name(domain: DomainId, span: HistorySpan, unique: bytes) -> str:
    times = f"{span.start_us // 1000:013x}-{span.end_us // 1000:013x}"
    prefix = history_prefix(domain, span.source)
    return f"{prefix}{span.level:x}/{times}-{to_text(unique)}"


def parse_history_name(name: str) -> HistorySpan | None:
    """Return what `name` says if it has the form of a history run's name, else None."""
    parts = name.split("/")
    if len(parts) != 6 or parts[0] != "d" or parts[2] != "h":  # noqa: PLR2004 - d/D/h/S/L/T-T-ID
        return None
    start, _, rest = parts[5].partition("-")
    end, _, unique = rest.partition("-")
    source, level = _id(parts[3], ID_SIZE), _hex(parts[4], 1)
    start_ms, end_ms = _hex(start, 13), _hex(end, 13)
    if source is None or level is None or start_ms is None or end_ms is None:
        return None
    if _id(unique, UNIQUE_SIZE) is None:
        return None
    return HistorySpan(SourceId(source), level, start_ms * 1000, end_ms * 1000)


def index_prefix(domain: DomainId) -> str:
    return f"{domain_prefix(domain)}x/"


def index_shard_name(domain: DomainId, generation: int, shard: int, unique: bytes) -> str:
    return f"{index_prefix(domain)}{generation:08x}/{shard:02x}-{to_text(unique)}"


def index_manifest_name(domain: DomainId, generation: int) -> str:
    return f"{index_prefix(domain)}{generation:08x}/done"


def parse_index_name(name: str) -> IndexName | None:
    """Return what `name` says if it has the form of a name below x/, else None."""
    parts = name.split("/")
    if len(parts) != 5 or parts[0] != "d" or parts[2] != "x":  # noqa: PLR2004 - d/D/x/N/SHARD-ID
        return None
    generation = _hex(parts[3], 8)
    if generation is None or parts[4] == "done":
        return None if generation is None else IndexName(generation, None)
    number, _, unique = parts[4].partition("-")
    shard = _hex(number, 2)
    if shard is None or _id(unique, UNIQUE_SIZE) is None:
        return None
    return IndexName(generation, shard)


def condemn_prefix(domain: DomainId) -> str:
    return f"{domain_prefix(domain)}g/"


def condemn_name(domain: DomainId, generation: int) -> str:
    return f"{condemn_prefix(domain)}{generation:08x}"


def final_name(domain: DomainId, generation: int) -> str:
    return f"{condemn_name(domain, generation)}.fin"


def parse_condemn_name(name: str) -> tuple[int, bool] | None:
    """Return (generation, is it the final list) for a name below g/, else None."""
    parts = name.split("/")
    if len(parts) != 4 or parts[0] != "d" or parts[2] != "g":  # noqa: PLR2004 - d/D/g/N
        return None
    generation = _hex(parts[3].removesuffix(".fin"), 8)
    return None if generation is None else (generation, parts[3].endswith(".fin"))


def _hex(text: str, width: int) -> int | None:
    if len(text) != width or not set(text) <= set("0123456789abcdef"):
        return None
    return int(text, 16)


def _id(text: str, size: int) -> bytes | None:
    try:
        raw = from_text(text)
    except ValueError:
        return None
    return raw if len(raw) == size else None
