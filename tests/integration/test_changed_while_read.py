"""T-F3: what a name leads to is swapped while it is read, and nothing outside is ever read.

STREAMD_SWAPS (default 800; 100,000 for acceptance) says how often.
"""

import contextlib
import os
import threading

import pytest
from integration.watch_tools import make_source

from streamd.sources.port import Outcome, ReadRequest

SWAPS = int(os.environ.get("STREAMD_SWAPS", "800"))
INSIDE, OUTSIDE = b"inside", b"SECRET"


@pytest.mark.timeout(120 + SWAPS // 50)
@pytest.mark.parametrize("what", ["directory", "file"])
def test_t_f3_no_content_from_outside_is_ever_read_while_links_are_swapped_in(
    tmp_path, what
) -> None:
    tree, outside = tmp_path / "tree", tmp_path / "outside"
    for place, content in ((tree / "d", INSIDE), (outside, OUTSIDE)):
        place.mkdir(parents=True)
        (place / "f").write_bytes(content)
    name = tree / "d" if what == "directory" else tree / "d/f"
    aside = tmp_path / "aside"
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            os.rename(name, aside)
            os.symlink(outside if what == "directory" else outside / "f", name)
            os.unlink(name)
            os.rename(aside, name)
            stop.wait(0.0005)

    source, path = make_source(tree), os.fsencode(tree / "d/f")
    swapper = threading.Thread(target=swap)
    swapper.start()
    outcomes: dict[Outcome, int] = {}
    try:
        expected = None
        for number in range(SWAPS):
            seen = source.examine(os.fsencode(tree / "d"), [b"f"]).entries.get(b"f")
            expected = seen or expected
            if seen is not None:
                assert seen.size == len(INSIDE) or seen.type != 1, "the outside was examined"
            if expected is None:
                continue
            if number % 2:
                batch = source.read([ReadRequest(path, expected)])
                content, result = bytes(batch.arena), batch.results[0]
            else:
                large = source.open_large(ReadRequest(path, expected))
                content = b""
                while (part := large.next()) is not None:
                    content += bytes(part[0])
                result = large.finish()
            assert OUTSIDE not in content
            outcomes[result.outcome] = outcomes.get(result.outcome, 0) + 1
    finally:
        stop.set()
        swapper.join()
    assert outcomes.get(Outcome.OK, 0) + outcomes.get(Outcome.FUZZY, 0) > 0
    assert outcomes.keys() <= {
        Outcome.OK,
        Outcome.FUZZY,
        Outcome.VANISHED,
        Outcome.TYPE_CHANGED,
    }, outcomes
    print(outcomes)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(aside)
