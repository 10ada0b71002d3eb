"""How many requests are under way at once, against links that are modelled here."""

import heapq

import pytest

from streamd.policy.window import LIMIT_MAX, START, Window

PACK = 16 << 20


def transferred(
    window: Window, *, rate: float, latency: float, seconds: float
) -> tuple[Window, float]:
    """Run `window` on a link that shares `rate` among what is under way; return its goodput.

    Each request pays `latency` first; the bytes of all then pass one after another.
    """
    now, sent = 0.0, 0
    under_way: list[tuple[float, float]] = []  # end, begin
    link_free = 0.0
    while now < seconds:
        while len(under_way) < window.size:
            link_free = max(link_free, now + latency) + PACK / rate
            heapq.heappush(under_way, (link_free, now))
        end, begin = heapq.heappop(under_way)
        now = end
        sent += PACK
        window = window.after(size_bytes=PACK, seconds=end - begin, now=now, held_up=True)
    return window, sent / now


@pytest.mark.parametrize(
    ("rate", "latency"),
    [(1e9, 0.001), (125e6, 0.03), (12.5e6, 0.03), (1e6, 0.1), (1e9, 0.5), (1e9, 2.0)],
)
def test_the_link_is_filled_whatever_its_rate_and_latency(rate: float, latency: float) -> None:
    window, goodput = transferred(Window(), rate=rate, latency=latency, seconds=600)
    alone = PACK / (latency + PACK / rate)
    best = min(rate, alone * LIMIT_MAX)
    assert goodput >= 0.8 * best, (window, goodput / best)


def test_a_full_link_is_not_given_more_than_it_needs() -> None:
    window, _ = transferred(Window(), rate=10e6, latency=0.03, seconds=3_600)
    assert window.size <= 8


def test_latency_is_hidden_by_more_requests() -> None:
    window, _ = transferred(Window(), rate=1e10, latency=1.0, seconds=600)
    assert window.size >= LIMIT_MAX * 3 // 4


def test_congestion_halves_once_per_round() -> None:
    window = Window(limit=32)
    halved = window.congested()
    assert halved.size == 16
    assert halved.congested() == halved
    for _ in range(16):
        halved = halved.after(size_bytes=PACK, seconds=1, now=1, held_up=False)
    assert halved.congested().size == 8
    assert Window(limit=1).congested().size == 1


def test_the_limit_stays_in_its_bounds() -> None:
    window, now = Window(limit=2, limit_max=3), 0.0
    for _ in range(100):
        now += 1 / window.size
        window = window.after(size_bytes=PACK, seconds=1, now=now, held_up=True)
        assert window.size <= 3
    assert window.size >= 2
    assert Window(limit=0.2).size == 1


def test_small_requests_do_not_steer() -> None:
    assert Window().after(size_bytes=100, seconds=9, now=9, held_up=True) == Window()


def test_nothing_grows_that_nobody_waits_for() -> None:
    window = Window()
    for second in range(100):
        window = window.after(size_bytes=PACK, seconds=1, now=second, held_up=False)
    assert window.size == START


def test_requests_that_queue_for_one_another_become_fewer() -> None:
    window = Window(limit=20)
    for second in range(20):
        window = window.after(size_bytes=PACK, seconds=1, now=second, held_up=True)
    for second in range(60):
        window = window.after(size_bytes=PACK, seconds=3, now=20 + second, held_up=True)
    assert window.size < 20
