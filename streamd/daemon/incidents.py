"""Incidents: sources that are suspect because they were damaged in mass; who tells the operator.

The commit notices (`catalog.suspicion`) and the journal's mark freezes retention; here the catalog
is only asked, whenever it has changed and at the start, so that a crash in between loses nothing.
"""

from typing import Final

from streamd.daemon.meters import Meters
from streamd.model.record import Incident
from streamd.observe.logging import get_logger

_LOG: Final = get_logger("incidents")


class IncidentWatch:
    """Tells once when a source becomes suspect, and once when it is released."""

    def __init__(self, source: str, meters: Meters) -> None:
        self._source = source
        self._meters = meters
        self._told: Incident | None = None

    def saw(self, incident: Incident | None) -> None:
        """The catalog says this now."""
        self._meters.suspect(self._source, is_suspect=incident is not None)
        if incident is not None and incident != self._told:
            _LOG.error(
                "source-suspect",
                source=self._source,
                reason=incident.reason,
                files=incident.file_count,
                before_us=incident.point_us,
                remedy=f"streamd diff, restore; then streamd retention release {self._source}",
            )
        self._told = incident
