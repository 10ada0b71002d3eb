"""What is owed after events were lost, and what one daemon leaves for the next."""

import pytest

from streamd.catalog.db import Catalog, put_value
from streamd.daemon import handover
from streamd.daemon.gaps import OpenGaps
from streamd.daemon.handover import Handover
from streamd.model.record import Gap


@pytest.fixture
def catalog(tmp_path):
    catalog = Catalog(str(tmp_path))
    yield catalog
    catalog.close()


def test_losses_in_the_same_place_are_one_gap_until_a_scan_begins() -> None:
    gaps = OpenGaps()
    for start_us in (10, 20, 30):
        gaps.begin(start_us, "overflow", b"/a")
    gaps.begin(15, "overflow", b"/b")
    open_before = gaps.now()
    assert [(gap.start_us, gap.scope) for gap in open_before] == [(10, b"/a"), (15, b"/b")]
    gaps.begin(40, "overflow", b"/a")  # the scan may have been there already
    assert gaps.close(open_before, 50) == [
        Gap(10, 50, "overflow", b"/a"),
        Gap(15, 50, "overflow", b"/b"),
    ]
    assert gaps.oldest_us() == 40
    assert gaps.close(gaps.now(), 60) == [Gap(40, 60, "overflow", b"/a")]
    assert gaps.oldest_us() is None


def test_an_older_loss_is_not_covered_by_a_younger_gap() -> None:
    gaps = OpenGaps()
    gaps.begin(20, "overflow", b"")
    gaps.begin(10, "overflow", b"")
    assert gaps.oldest_us() == 10


def test_a_handover_counts_once(catalog) -> None:
    left = Handover(handover.boot_id(), b"trees", b"settings")
    catalog.write_now(handover.leave, {"web": left})
    assert catalog.write_now(handover.take, "other") is None
    assert catalog.write_now(handover.take, "web") == left
    assert catalog.write_now(handover.take, "web") is None


def test_a_handover_of_another_boot_does_not_count(catalog) -> None:
    catalog.write_now(handover.leave, {"web": Handover(b"another", b"trees", b"settings")})
    assert catalog.write_now(handover.take, "web") is None


def test_a_handover_that_cannot_be_read_does_not_count(catalog) -> None:
    catalog.write_now(put_value, "handover:web", b"\xc1")
    assert catalog.write_now(handover.take, "web") is None
