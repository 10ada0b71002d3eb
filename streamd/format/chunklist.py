"""Chunk-list trees: long content lists, cut into pages that deduplicate.

A list of more than 64 runs is split into pages where a run's id says so (2 bytes of the id modulo
512), so that a change in the middle of a large file rewrites one page, not the list. A page is the
msgpack array of its runs and is stored as a META chunk; its own run in the level above carries the
page's id and the file bytes it covers. Pages of pages, until 64 runs or fewer are left.
"""

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from streamd.errors import VaultDamaged
from streamd.format import wire
from streamd.format.crypto import Buffer
from streamd.model.entry import ContentRun

DIRECT_MAX: Final = 64
PAGE_AVERAGE: Final = 512
PAGE_MIN: Final = 64
PAGE_MAX: Final = 4096
LEVELS_MAX: Final = 6
_PAGE: Final = msgspec.msgpack.Decoder(list[ContentRun])


def paginate(
    runs: Sequence[ContentRun], chunk_id: Callable[[bytes], bytes], *, apart: int = 0
) -> tuple[int, tuple[ContentRun, ...], dict[bytes, bytes]]:
    """Return (levels, top runs, pages by id) for a content list. Levels 0: the list is short.

    The last `apart` runs get a page of their own: they change more often than those before.
    """
    pages: dict[bytes, bytes] = {}
    level, levels = list(runs), 0
    while len(level) > DIRECT_MAX:
        above: list[ContentRun] = []
        cut, apart = len(level) - apart, 0  # once: above there is one run for all of them
        for page in [*_split(level[:cut]), *_split(level[cut:])]:
            body = msgspec.msgpack.encode(page)
            page_id = chunk_id(body)
            pages[page_id] = body
            above.append(ContentRun(page_id, sum(run.size for run in page)))
        level, levels = above, levels + 1
    assert levels <= LEVELS_MAX
    return levels, tuple(level), pages


def _split(runs: Sequence[ContentRun]) -> list[list[ContentRun]]:
    pages: list[list[ContentRun]] = []
    page: list[ContentRun] = []
    for run in runs:
        page.append(run)
        boundary = run.id is not None and int.from_bytes(run.id[:2], "little") % PAGE_AVERAGE == 0
        if len(page) >= PAGE_MAX or (boundary and len(page) >= PAGE_MIN):
            pages.append(page)
            page = []
    if page:
        pages.append(page)
    return pages


def decode_page(data: Buffer) -> list[ContentRun]:
    """Parse a page. Raises VaultDamaged."""
    runs = wire.decode(_PAGE, data, "a chunk-list page")
    if not 0 < len(runs) <= PAGE_MAX:
        raise VaultDamaged("a chunk-list page has an impossible length")
    return runs
