"""A file system on which much happens elsewhere does not keep the event loop to itself."""

from streamd.sources.filesystem import fanotify
from streamd.sources.filesystem.backlog import Backlog
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

    def waiting(self) -> int:
        return self.left


class Endless(Busy):
    """For each event that is read another one comes."""

    def read(self) -> list[fanotify.Event]:
        self.left += 1
        return super().read()


def watch_with(reads: int, kind: type[Busy] = Busy) -> tuple[DeviceWatch, Busy, SlowClock]:
    clock = SlowClock()
    watch = object.__new__(DeviceWatch)
    watch.subscriptions, watch._clock, watch._ignored_pid, watch._asked = [], clock, 1, []
    watch._places, watch._lonely = {}, set()
    watch.group = kind(reads, clock)
    watch._backlog = Backlog(clock, watch.group.waiting)
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


def test_a_queue_that_never_is_empty_is_known_to_be_delivered_up_to_what_it_held() -> None:
    watch, group, clock = watch_with(20, Endless)
    seen = []
    for _ in range(12):  # five events each
        assert watch.drain(500) is None
        seen.append(watch.delivered_us)
    assert group.left == 20
    assert seen == sorted(seen)
    assert seen[2] == 0, "15 of the 20 that were there"
    assert seen[4] == 1, "the instant at which they were counted, not that at which they were read"
    assert clock.now_us() - seen[-1] <= 500_000, "and on"
