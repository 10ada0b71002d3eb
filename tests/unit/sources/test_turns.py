"""A file system on which much happens elsewhere does not keep the event loop to itself."""

from streamd.sources.filesystem import fanotify
from streamd.sources.filesystem.devicewatch import DeviceWatch


class SlowClock:
    """Each event takes ten milliseconds."""

    seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds

    def now_us(self) -> int:
        return int(self.seconds * 1e6) + 1


class Busy:
    """A group whose queue holds so many reads of one event each."""

    def __init__(self, reads: int, clock: SlowClock) -> None:
        self.left, self._clock = reads, clock

    def read(self) -> list[fanotify.Event]:
        if not self.left:
            return []
        self.left -= 1
        self._clock.seconds += 0.01
        return [fanotify.Event(fanotify.ATTRIB, 0, [], b"")]


def watch_with(reads: int) -> tuple[DeviceWatch, Busy, SlowClock]:
    clock = SlowClock()
    watch = object.__new__(DeviceWatch)
    watch.subscriptions, watch._clock, watch._ignored_pid, watch._asked = [], clock, 1, []
    watch._places, watch._lonely = {}, set()
    watch.group = Busy(reads, clock)
    return watch, watch.group, clock


def test_a_turn_ends_in_time_and_says_that_there_is_more() -> None:
    watch, group, clock = watch_with(1000)
    assert watch.drain(500) is None
    assert clock.seconds <= 0.07
    assert group.left > 900


def test_turn_by_turn_everything_is_delivered() -> None:
    watch, group, _ = watch_with(20)
    turns = 1
    while watch.drain(500) is None:
        turns += 1
    assert group.left == 0
    assert turns >= 4


def test_the_last_time_everything_is_delivered_at_once() -> None:
    watch, group, _ = watch_with(300)
    assert watch.drain(500, is_last=True) is not None
    assert group.left == 0
