"""Only what is suspect can be released, and a request that makes no sense is refused."""

import asyncio
from types import SimpleNamespace

import pytest

from streamd.catalog.db import Catalog
from streamd.catalog.suspicion import note
from streamd.catalog.tree import load_source
from streamd.daemon import releasing
from streamd.daemon.control import REQUEST_SECONDS_MAX
from streamd.daemon.incidents import IncidentWatch
from streamd.daemon.meters import Meters
from streamd.daemon.releasing import release, release_args, release_here
from streamd.effects import SystemClock
from streamd.errors import NotDurableYet, NotFound, UsageInvalid
from streamd.model.ids import SourceId
from streamd.model.record import SUSPECT, Incident

INCIDENT = Incident("before-incident", kind=SUSPECT, point_us=7, reason="deleted", file_count=200)


@pytest.fixture
def host(tmp_path):
    catalog = Catalog(str(tmp_path))
    yield SimpleNamespace(catalog=catalog)
    catalog.close()


@pytest.mark.asyncio
async def test_a_source_that_is_not_suspect_cannot_be_released(host) -> None:
    with pytest.raises(NotFound, match="not suspect"):
        await release(host, release_args("web", 0))
    await host.catalog.write(load_source, "web", SourceId(bytes(16)))
    await host.catalog.write(note, "web", INCIDENT)
    with pytest.raises(NotFound):  # nothing of it was ever recorded
        await release(host, release_args("web", 0))


@pytest.mark.asyncio
@pytest.mark.parametrize("seconds", [-1, "7d", None])
async def test_a_hold_is_a_number_of_seconds(host, seconds) -> None:
    with pytest.raises(UsageInvalid, match="hold_seconds"):
        await release(host, release_args("web", seconds))


class Stuck:
    """A pipeline that takes a finding, or does not, and never gets anything durable."""

    def __init__(self, *, is_full: bool) -> None:
        self.is_full = is_full
        self.never = asyncio.Event()

    async def submit(self, *_: object, **__: object) -> None:
        if self.is_full:
            await self.never.wait()

    async def run(self) -> None:
        await self.never.wait()


async def stuck_host(host, monkeypatch, *, is_full: bool):
    monkeypatch.setattr(releasing, "PATIENCE_SECONDS", 0.05)
    await host.catalog.write(load_source, "web", SourceId(bytes(16)))
    await host.catalog.write(note, "web", INCIDENT)
    host.clock, host.pipeline = SystemClock(), Stuck(is_full=is_full)
    host.spool = SimpleNamespace(full_since_us=7 if is_full else 0)
    monkeypatch.setattr(
        releasing.suspicion, "identity_of", lambda *_: SimpleNamespace(id=b"", info=None, number=1)
    )
    return host


@pytest.mark.asyncio
@pytest.mark.parametrize("is_full", [True, False])
async def test_a_release_that_cannot_be_recorded_ends_in_time_and_says_what_to_do(
    host, monkeypatch, is_full
) -> None:
    stuck = await stuck_host(host, monkeypatch, is_full=is_full)
    async with asyncio.timeout(20):
        with pytest.raises(NotDurableYet, match='"web" is not released yet') as caught:
            await release(stuck, release_args("web", 0))
    assert ("the local copy is full" in str(caught.value)) is is_full
    assert "streamd status" in caught.value.advice()


@pytest.mark.asyncio
async def test_without_a_daemon_it_ends_in_time_too(host, monkeypatch) -> None:
    stuck = await stuck_host(host, monkeypatch, is_full=False)
    async with asyncio.timeout(20):
        with pytest.raises(ExceptionGroup) as caught:
            await release_here(stuck, release_args("web", 0))
    assert caught.group_contains(NotDurableYet)


def test_our_patience_ends_before_that_of_the_control_socket() -> None:
    assert releasing.PATIENCE_SECONDS < REQUEST_SECONDS_MAX


def test_an_incident_is_told_once_and_shown_while_it_lasts(capsys) -> None:
    shown_as: list[tuple[str, bool]] = []

    class Shown(Meters):
        def suspect(self, source: str, *, is_suspect: bool) -> None:
            super().suspect(source, is_suspect=is_suspect)
            shown_as.append((source, is_suspect))

    watch = IncidentWatch("web", Shown())
    for incident in (None, INCIDENT, INCIDENT, None, INCIDENT):
        watch.saw(incident)
    assert shown_as == [("web", each) for each in (False, True, True, False, True)]
    said = capsys.readouterr()  # where to: whatever the process was told before
    assert (said.out + said.err).count("source-suspect") == 2
