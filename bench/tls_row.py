"""The row of the uplink alone: packs to a discarding HTTPS sink, beside a bare aiohttp client."""

from collections.abc import Iterator

from bench import sink
from bench.figures import Figure, Place


def measure(place: Place) -> Iterator[Figure]:
    """Send in turns, and compare the best rounds."""
    paces = sink.compare(512 if place.quick else 2048, place.rounds)
    ours, bare = paces["streamd"], paces["bare"]
    yield Figure("TLS sink", "streamd's adapter", ours.megabytes_per_second, "MB/s")
    yield Figure("TLS sink", "bare sliced aiohttp", bare.megabytes_per_second, "MB/s")
    share = ours.megabytes_per_second / bare.megabytes_per_second
    yield Figure("TLS sink", "rate, as a share of bare aiohttp", share, "", 0.8, at_least=True)
    yield Figure("TLS sink", "CPU per stored GB", ours.cpu_seconds_per_gb, "s", 1.2)
    yield Figure("TLS sink", "RSS", ours.resident_mib, "MiB")
