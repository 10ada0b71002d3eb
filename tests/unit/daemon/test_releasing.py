"""Only what is suspect can be released, and a request that makes no sense is refused."""

from types import SimpleNamespace

import pytest

from streamd.catalog.db import Catalog
from streamd.catalog.suspicion import note
from streamd.catalog.tree import load_source
from streamd.daemon.incidents import IncidentWatch
from streamd.daemon.meters import Meters
from streamd.daemon.releasing import release, release_args
from streamd.errors import NotFound, UsageInvalid
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
