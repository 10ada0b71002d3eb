"""The last events are remembered, as many as are worth it."""

from streamd.daemon.recent import RecentEvents


def test_the_newest_are_remembered_and_the_oldest_forgotten() -> None:
    recent = RecentEvents(limit=100)
    for number in range(1000):
        recent.saw([b"%d" % number, b"again"], number + 1)
        assert len(recent._at) <= 110
    assert recent.last_us(b"again") == recent.last_us(b"999") == 1000
    assert recent.last_us(b"901") == 902
    assert recent.last_us(b"0") == 0


def test_a_batch_larger_than_the_limit_leaves_its_end() -> None:
    recent = RecentEvents(limit=10)
    recent.saw([b"%d" % number for number in range(1000)], 7)
    assert recent.last_us(b"999") == 7
    assert recent.last_us(b"980") == 0
