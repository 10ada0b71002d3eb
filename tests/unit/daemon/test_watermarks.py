"""The lag counts what nobody has noticed yet, and says so."""

from types import SimpleNamespace

import pytest

from streamd.catalog.dirty import EVER
from streamd.daemon import watermarks
from streamd.daemon.progress import Progress
from streamd.daemon.watermarks import PATIENCE_SECONDS, Watermarks
from streamd.effects import MICROSECONDS
from streamd.sources.filesystem.modes import POLL_SECONDS

NOON_US = 1_790_000_000_000_000


class Fake:
    """A source that is watched, and a clock that is moved by hand."""

    def __init__(self, mode: str = "fanotify") -> None:
        self.now = NOON_US
        self.covered = EVER
        self.source = SimpleNamespace(name="web", roots=(b"/srv/web",), watch_modes={b"/srv": mode})
        self.progress = Progress(is_watching=True, drained_us=NOON_US)
        self.watermarks = Watermarks(self.source, self.progress, self, lambda: self.covered)

    def now_us(self) -> int:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += int(seconds * MICROSECONDS)

    def lags(self) -> tuple[float, float]:
        return self.watermarks.lag_seconds("local"), self.watermarks.lag_seconds("vault")


def test_nothing_lags_while_the_watch_says_in_time_that_nothing_happened() -> None:
    fake = Fake()
    for _ in range(100):
        fake.wait(PATIENCE_SECONDS)
        assert fake.lags() == (0, 0)
        assert not fake.watermarks.waiting()
        fake.progress.drained_us = fake.now


def test_a_watch_that_does_not_get_on_is_a_lag_that_grows_until_it_does() -> None:
    fake = Fake()
    fake.wait(PATIENCE_SECONDS + 1)
    assert fake.lags() == (PATIENCE_SECONDS + 1, PATIENCE_SECONDS + 1)
    fake.wait(60)
    assert fake.lags() == (PATIENCE_SECONDS + 61, PATIENCE_SECONDS + 61)
    assert fake.watermarks.waits_since_us == NOON_US == fake.watermarks.through_us("vault")
    assert fake.watermarks.waiting() == (
        "events of /srv/web wait: what changed in the last 64 s may be unnoticed"
    )
    fake.progress.drained_us = fake.now
    assert fake.lags() == (0, 0)
    assert not fake.watermarks.waiting()


def test_what_is_known_to_wait_for_longer_counts() -> None:
    fake = Fake()
    fake.progress.vault_oldest_us = NOON_US - 100 * MICROSECONDS
    fake.wait(PATIENCE_SECONDS + 2)
    assert fake.lags() == (PATIENCE_SECONDS + 2, PATIENCE_SECONDS + 102)


def test_a_polled_source_lags_when_no_poll_comes_not_between_two() -> None:
    fake = Fake("polling")
    fake.wait(POLL_SECONDS + PATIENCE_SECONDS)
    assert fake.lags() == (0, 0)
    fake.wait(1)
    assert fake.lags()[0] == POLL_SECONDS + PATIENCE_SECONDS + 1


def test_before_the_watch_has_begun_the_lag_counts_from_what_an_earlier_one_had_noticed() -> None:
    fake = Fake()
    fake.progress.drained_us, fake.progress.is_watching = 0, False
    fake.wait(30)
    assert fake.lags() == (30, 30), "nothing was ever noticed: since it could have been"
    fake.covered = NOON_US - 600 * MICROSECONDS
    assert fake.lags() == (630, 630)
    assert not fake.watermarks.waiting(), "it starts, and says so"


def test_a_clock_that_is_set_back_makes_no_lag() -> None:
    fake = Fake()
    fake.wait(-3600)
    assert fake.lags() == (0, 0)


@pytest.mark.parametrize("rounds", [1, 3])
def test_the_log_says_once_that_events_wait_and_once_that_they_do_no_longer(
    monkeypatch, rounds
) -> None:
    said: list[str] = []
    log = SimpleNamespace(
        warning=lambda event, **_: said.append(event), info=lambda event, **_: said.append(event)
    )
    monkeypatch.setattr(watermarks, "_LOG", log)
    fake = Fake()
    for _ in range(rounds):
        for _ in range(5):
            fake.wait(PATIENCE_SECONDS)
            fake.watermarks.look()
        fake.progress.drained_us = fake.now
        for _ in range(5):
            fake.watermarks.look()
    assert said == ["events-wait", "events-wait-no-longer"] * rounds
