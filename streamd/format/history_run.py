"""History runs: the records of one source in a stretch of one journal, sorted by key and time.

What `history` and `find` ask for (one file, all names, all gaps) stands together here, while in the
journal it is spread over every segment. An object of kind H, signed and whole in itself:

    header: src = [source], t and t1 = times of the first and last record
    section h       HistoryRoot, under META
    section 0 …     pages: msgpack arrays of HistoryRow, under META, in order of (key, number)

A run is an accelerator: the segments that it covers say the same, and a reader that ignores it
comes to the same results.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

import msgspec

from streamd.effects import Entropy
from streamd.errors import VaultDamaged
from streamd.format import envelope, layout, wire
from streamd.format.crypto import Buffer
from streamd.format.envelope import Envelope, Header, Kind, SectionDraft, Signer, VerifyKey
from streamd.format.keys import KeyChain, KeySource, Session
from streamd.format.pack import EncodedObject
from streamd.model.ids import SourceId

PAGE_BYTES: Final = 256 * 1024  # keys and values of a page; one that is longer has one row
PAGES_MAX: Final = 4096
RUN_BYTES_MAX: Final = 32 * 1024 * 1024  # keys and values of a run
RUN_RECORDS_MAX: Final = 262_144
LEVELS_MAX: Final = 15
HEAD_GUESS: Final = 128 * 1024  # a first read that usually holds header and root
_ROOT_TAG: Final = "h"


class HistoryRow(msgspec.Struct, array_like=True, frozen=True):
    """One record: SET, DEL, MARK, GAP or RESET.

    `number` counts the run's records in the order of the journal.
    """

    key: bytes
    number: int
    at_us: int
    op: int
    value: bytes


class Cover(msgspec.Struct, array_like=True, frozen=True):
    """The stretch of a journal that a run holds all records of its source from."""

    writer: bytes
    first_epoch: int
    first_seq: int
    last_epoch: int
    last_seq: int
    hash: bytes  # of the last segment

    @property
    def first(self) -> layout.JournalPosition:
        """The first segment covered."""
        return layout.JournalPosition(self.first_epoch, self.first_seq)

    @property
    def last(self) -> layout.JournalPosition:
        """The last segment covered."""
        return layout.JournalPosition(self.last_epoch, self.last_seq)


class HistoryPage(msgspec.Struct, array_like=True, frozen=True):
    """One page of a run."""

    first_key: bytes
    row_count: int


class HistoryRoot(msgspec.Struct, array_like=True, frozen=True):
    """What a run says besides its pages."""

    source: bytes
    level: int
    start_us: int  # of the first segment covered
    end_us: int  # of the last
    cover: Cover
    pages: tuple[HistoryPage, ...]


_ROOT: Final = msgspec.msgpack.Decoder(HistoryRoot)
_PAGE: Final = msgspec.msgpack.Decoder(list[HistoryRow])


def split_pages(rows: Iterable[HistoryRow]) -> Iterator[list[HistoryRow]]:
    """Cut sorted rows into pages."""
    part: list[HistoryRow] = []
    size = 0
    for row in rows:
        row_size = len(row.key) + len(row.value)
        if part and size + row_size > PAGE_BYTES:
            yield part
            part, size = [], 0
        part.append(row)
        size += row_size
    if part:
        yield part


def encode_run(
    root: HistoryRoot,
    rows: Iterable[HistoryRow],
    *,
    keys: KeyChain,
    meta: Session,
    signer: Signer,
    entropy: Entropy,
) -> EncodedObject:
    """Return a run's object; the pages of `root` are filled in from `rows`, which are sorted.

    Of the rows one page's are held at a time.
    """
    pages, sections = list[HistoryPage](), list[SectionDraft]()
    for number, part in enumerate(split_pages(rows)):
        pages.append(HistoryPage(part[0].key, len(part)))
        sections.append(SectionDraft(str(number), (msgspec.msgpack.encode(part),), 0))
    assert len(pages) <= PAGES_MAX
    body = msgspec.msgpack.encode(msgspec.structs.replace(root, pages=tuple(pages)))
    drafts = [SectionDraft(_ROOT_TAG, (body,), 0), *sections]
    header = Header(
        v=keys.vault,
        d=keys.domain,
        w=keys.writer,
        t=root.start_us,
        t1=root.end_us,
        ks=[meta.source],
        src=[root.source],
    )
    data = envelope.build(
        Kind.HISTORY,
        header,
        drafts,
        secrets={0: meta.secret},
        entropy=entropy,
        signer=signer,
        padded_size=envelope.padme,
    )
    span = layout.HistorySpan(SourceId(root.source), root.level, root.start_us, root.end_us)
    unique = entropy.token(layout.UNIQUE_SIZE)
    return EncodedObject(layout.history_name(keys.domain, span, unique), data)


def decode_root(parsed: Envelope, secret_for: Callable[[KeySource], bytes]) -> HistoryRoot:
    """Return the root of a parsed run, or of its beginning. Raises VaultDamaged, KeyRejected."""
    root = wire.decode(_ROOT, parsed.plain(_ROOT_TAG, secret_for), "a history run")
    header = parsed.header
    if ([root.source], root.start_us, root.end_us) != (header.src, header.t, header.t1):
        raise VaultDamaged("a history run contradicts its header")
    if root.cover.writer != header.w or root.cover.first > root.cover.last:
        raise VaultDamaged("a history run covers an impossible stretch")
    if len(root.pages) > PAGES_MAX or len(header.sec) != len(root.pages) + 1:
        raise VaultDamaged("a history run has other pages than it says")
    return root


def decode_run(
    data: Buffer, verify_key: VerifyKey, secret_for: Callable[[KeySource], bytes]
) -> tuple[HistoryRoot, list[HistoryRow]]:
    """Parse and authenticate a whole run. Raises VaultDamaged, KeyRejected."""
    envelope.verify_signature(data, verify_key)
    parsed = envelope.parse(data, Kind.HISTORY)
    root = decode_root(parsed, secret_for)
    rows: list[HistoryRow] = []
    for number in range(len(root.pages)):
        rows += decode_page(parsed, root, number, secret_for)
    places = [(row.key, row.number) for row in rows]
    if places != sorted(set(places)):
        raise VaultDamaged("a history run is out of order")
    return root, rows


def decode_page(
    parsed: Envelope, root: HistoryRoot, number: int, secret_for: Callable[[KeySource], bytes]
) -> list[HistoryRow]:
    """Return one page. Raises VaultDamaged, KeyRejected."""
    rows = wire.decode(_PAGE, parsed.plain(str(number), secret_for), "a page of a history run")
    page = root.pages[number]
    if len(rows) != page.row_count or not rows or rows[0].key != page.first_key:
        raise VaultDamaged("a page of a history run is not what its root says")
    return rows


def pages_with(root: HistoryRoot, prefixes: Sequence[bytes]) -> list[int]:
    """Return the pages that may hold keys that begin with one of `prefixes`, or notes.

    Notes (gaps and marks) have the empty key, which sorts before all others.
    """
    wanted = []
    for number, page in enumerate(root.pages):
        if not page.first_key:
            wanted.append(number)
            continue
        last = root.pages[number + 1].first_key if number + 1 < len(root.pages) else None
        for prefix in prefixes:
            begins_later = page.first_key[: len(prefix)] > prefix
            ended_before = last is not None and last < prefix
            if not begins_later and not ended_before:
                wanted.append(number)
                break
    return wanted
