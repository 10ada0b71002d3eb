"""Name what missing chunks cost: the paths and versions that cannot be had whole any more."""

from typing import Final

from streamd.errors import NotFound, VaultDamaged
from streamd.maintenance.verify_report import Affected, VerifyReport
from streamd.model.entry import FileVersion
from streamd.model.ids import SourceId
from streamd.model.record import SOURCE_KEY, Op, Record, parse_version_key
from streamd.vault.parallel import OBJECT_FAULTS
from streamd.vault.state_reader import StateReader
from streamd.vault.tree_state import decode_version

_INSTANTS_MAX: Final = 200  # states looked through, for each source


class AffectedSearch:
    """Looks for versions whose content lies in `missing`."""

    def __init__(self, states: StateReader, missing: set[bytes], report: VerifyReport) -> None:
        self._states = states
        self._missing = missing
        self._report = report
        self._seen: set[tuple[SourceId, bytes, int]] = set()

    async def run(self) -> None:
        """Name the paths, in every kept state that has them."""
        for source, instants in (await self._instants()).items():
            for at_us in sorted(instants)[-_INSTANTS_MAX:]:
                await self._look_through(source, at_us)

    async def _instants(self) -> dict[SourceId, set[int]]:
        """Return the instants at which an affected version may be found: source -> µs."""
        found: dict[SourceId, set[int]] = {}
        for row in await self._states.checkpoints():
            found.setdefault(row.source, set()).add(row.at_ms * 1000 + 999)
        for journal in self._states.journals():
            async for head, records in journal.records():
                for record in records:
                    version = _version_in(record)
                    if version is not None and await self._is_affected(version):
                        source = head.sources[record.source_ix]
                        found.setdefault(source, set()).add(head.start_us + record.dt_us)
        return found

    async def _look_through(self, source: SourceId, at_us: int) -> None:
        try:
            state = await self._states.state_at(source, at_us)
        except (*OBJECT_FAULTS, NotFound):
            return
        with state:
            name = state.info().name if state.get(SOURCE_KEY) else "?"
            for entry in state.walk():
                version = entry.version
                if version is None or not version.content:
                    continue
                key = (source, entry.path, version.ctime_ns or version.mtime_ns)
                if key not in self._seen and await self._is_affected(version):
                    self._seen.add(key)
                    self._report.affects(Affected(name, entry.path, at_us, version.mtime_ns))

    async def _is_affected(self, version: FileVersion) -> bool:
        if any(run.id in self._missing for run in version.content):
            return True
        if not version.levels:
            return False
        try:
            runs = await self._states.chunks.expand(version)
        except VaultDamaged:
            return True
        return any(run.id in self._missing for run in runs)


def _version_in(record: Record) -> FileVersion | None:
    if record.op != Op.SET or parse_version_key(record.key) is None:
        return None
    return decode_version(record.value)
