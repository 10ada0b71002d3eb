"""A retention run: decide which points stay, make them independent of the journal, drop the rest.

    1  finish or cancel what an interrupted run left
    2  decide, per source, which points are kept (policy.retention)
    3  every kept point outside the continuous window gets a checkpoint, read back and compared
    4  the prefix of the journal that no source replays from, and checkpoints of no kept point, go
    5  collect what nothing refers to any more (maintenance.collect)

Step 3 ends before anything is condemned; a crash anywhere leaves every kept point restorable.
"""

from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Final

import msgspec
from msgspec.structs import replace

from streamd.catalog.db import Catalog, get_bytes, put_value
from streamd.catalog.objects import ObjectState
from streamd.catalog.suspicion import recall, suspects_among
from streamd.errors import NotFound, PolicyRefused, SourceSuspect, VaultDamaged
from streamd.format import layout
from streamd.format.checkpoint import JournalMark
from streamd.format.vault_config import check_supported
from streamd.maintenance.checkpointing import publish_root
from streamd.maintenance.collect import (
    Collector,
    Doomed,
    KnownObject,
    Outcome,
    Progress,
    Quiesce,
    known_objects,
    newest_number,
)
from streamd.maintenance.cut import (
    Verdict,
    choose_cut,
    moved_on,
    roots_to_drop,
    roots_to_move_on,
)
from streamd.maintenance.generations import Generations
from streamd.maintenance.live import LiveSet
from streamd.maintenance.points import PointReport, SourceHistory, read_histories, report_on
from streamd.maintenance.recheck import read_fresh_segments, segments_are_put
from streamd.maintenance.rooting import Rooted, prove_roots, proven_in_catalog, root_points
from streamd.maintenance.site import Site
from streamd.model.ids import SourceId
from streamd.policy import retention
from streamd.policy.retention import Rule
from streamd.storage.port import BlobName
from streamd.vault.chunk_reader import ChunkReader
from streamd.vault.journal_reader import Damage, JournalReader, SegmentHead, SegmentRow
from streamd.vault.state_reader import StateReader
from streamd.vault.vault import Vault

_RULES: Final = "retention_rules"  # in table meta: the rules of the last run, by source
_Rules = dict[str, dict[str, int]]
_DECODER: Final = msgspec.msgpack.Decoder(_Rules)
Rules = Mapping[str, Rule]


class RetentionPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What a run would do."""

    points: tuple[PointReport, ...]
    losses: dict[str, float]  # share of the points that a changed rule would drop, by source
    segment_count: int  # leading segments of the journal that would go
    segment_bytes: int
    checkpoint_count: int  # checkpoints of points that are not kept

    @property
    def refused(self) -> tuple[str, ...]:
        """Sources whose changed rule drops so much that it has to be accepted."""
        return tuple(name for name, loss in self.losses.items() if loss > retention.LOSS_RATIO_MAX)


class RetentionReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a run did. `points` is as decided at its beginning: what is not kept has expired."""

    points: tuple[PointReport, ...]
    checkpoints_written: int = 0
    deleted_objects: int = 0
    cancelled_objects: int = 0
    reclaimed_bytes: int = 0
    moved_bytes: int = 0
    is_postponed: bool = False  # the vault of record is behind: the next run goes on
    damage: tuple[Damage, ...] = ()

    @property
    def expired_count(self) -> int:
        """How many points were dropped."""
        return sum(one.expired_count for one in self.points)

    def kept_by_class(self, source: str) -> dict[str, int]:
        """Return how many points of a source each class keeps."""
        return next((one.kept_by_class() for one in self.points if one.source == source), {})


def rules_in_force(catalog: Catalog) -> dict[str, Rule]:
    """Return the rules that the last run went by."""
    with catalog.reader() as connection:
        stored = get_bytes(connection, _RULES)
    found = _DECODER.decode(stored) if stored else {}
    return {name: Rule(**fields) for name, fields in found.items()}


def _encoded(rules: Rules) -> bytes:
    return msgspec.msgpack.encode({name: msgspec.to_builtins(rule) for name, rule in rules.items()})


# -- deciding --------------------------------------------------------------------------------------


def _judge(
    histories: Sequence[SourceHistory],
    rules: Rules,
    default: Rule,
    *,
    now_us: int,
    timezone: str,
    only: str | None,
    old_rules: Rules,
) -> list[Verdict]:
    """Return a verdict for each source; one without a name, or not asked for, keeps everything.

    A source that is not configured any more goes by its last rule. One that is suspect keeps
    everything, whoever runs this and whatever was asked for: that is read from the journal itself.
    """
    if only is not None and only not in {each.name for each in histories}:
        raise NotFound(f'there is no source "{only}" in the vault')
    verdicts = []
    for history in histories:
        if not history.name or (only is not None and history.name != only):
            verdicts.append(Verdict(history))
            continue
        rule = rules.get(history.name) or old_rules.get(history.name, default)
        decisions = history.decide(rule, now_us=now_us, timezone=timezone)
        if history.incident is None:
            verdicts.append(Verdict(history, rule, decisions, now_us))
        else:
            verdicts.append(Verdict(history, None, decisions, now_us, frozen_rule=rule))
    return verdicts


def _check_frozen(verdicts: Sequence[Verdict], only: str | None) -> None:
    """Raise SourceSuspect if just the source that was asked for is frozen."""
    for verdict in verdicts:
        incident = verdict.history.incident
        if incident is not None and verdict.history.name == only:
            raise SourceSuspect(
                f"{only} was damaged in mass ({incident.reason}: {incident.file_count} files),"
                " and nothing of it is thinned until that is released",
                reason="suspect",
            )


def _losses(
    verdicts: Sequence[Verdict], old_rules: Rules, *, now_us: int, timezone: str
) -> dict[str, float]:
    losses = {}
    for verdict in verdicts:
        old = old_rules.get(verdict.history.name)
        if verdict.rule is not None and old is not None and old != verdict.rule:
            losses[verdict.history.name] = retention.loss_ratio(
                verdict.history.candidates, old, verdict.rule, now_us=now_us, timezone=timezone
            )
    return losses


def _reports(verdicts: Sequence[Verdict]) -> tuple[PointReport, ...]:
    return tuple(
        report_on(verdict.history, verdict.decisions, rule, verdict.now_us)
        for verdict in verdicts
        if (rule := verdict.rule or verdict.frozen_rule) is not None
    )


async def plan(
    vault: Vault,
    rules: Rules,
    *,
    default: Rule,
    now_us: int,
    timezone: str = "UTC",
    only: str | None = None,
    old_rules: Rules | None = None,
) -> RetentionPlan:
    """Return what `run` would keep and drop, and why. Changes nothing. Raises NotFound."""
    reader = StateReader(vault)
    histories = await read_histories(vault, reader)
    verdicts = _judge(
        histories,
        rules,
        default,
        now_us=now_us,
        timezone=timezone,
        only=only,
        old_rules=old_rules or {},
    )
    cut = choose_cut(await reader.heads(), verdicts)
    return RetentionPlan(
        points=_reports(verdicts),
        losses=_losses(verdicts, old_rules or {}, now_us=now_us, timezone=timezone),
        segment_count=len(cut),
        segment_bytes=sum(head.size_bytes for head in cut),
        checkpoint_count=len(roots_to_drop(verdicts)),
    )


# -- running ---------------------------------------------------------------------------------------


async def _nothing_in_flight() -> None:
    """There is no pipeline beside us."""


def _silent(step: str, done: int, of: int) -> None:
    del step, done, of


async def run(
    site: Site,
    rules: Rules,
    *,
    default: Rule,
    quiesce: Quiesce = _nothing_in_flight,
    timezone: str = "UTC",
    only: str | None = None,
    accept_loss: bool = False,
    upload_patience_seconds: float = 60.0,
    progress: Progress = _silent,
    now_us: int | None = None,
) -> RetentionReport:
    """Enforce the rules; `default` is that of sources that `rules` does not name.

    `now_us` is the time to judge by, where the storage knows it better than this host's clock.
    `quiesce` returns when every batch that capture began before the call is committed or dropped.
    Raises NotFound, PolicyRefused if a changed rule drops too much, and VaultDamaged if something
    that is needed cannot be read: then nothing was deleted. Raises FormatUnsupported if the vault
    has a feature that whoever deletes has to know, and SourceSuspect if `only` is frozen.
    """
    features = site.vault.config.features
    check_supported(site.vault.config, features.maintain + features.write)
    one = _Run(site, quiesce, upload_patience_seconds, progress)
    return await one.run(
        rules, default, timezone=timezone, only=only, accept_loss=accept_loss, now_us=now_us
    )


class _Run:
    """One retention run."""

    def __init__(
        self, site: Site, quiesce: Quiesce, patience_seconds: float, progress: Progress
    ) -> None:
        self._site = site
        self._quiesce = quiesce
        self._patience = patience_seconds
        self._progress = progress
        self._generations = Generations(site)
        self._written: list[Rooted] = []  # checkpoints of this run

    async def run(
        self,
        rules: Rules,
        default: Rule,
        *,
        timezone: str,
        only: str | None,
        accept_loss: bool,
        now_us: int | None,
    ) -> RetentionReport:
        await self._site.finish_puts()
        is_finished = await self._generations.finish(self._is_durable)
        reader = StateReader(self._site.vault)
        now_us = self._site.clock.now_us() if now_us is None else now_us
        histories = await read_histories(self._site.vault, reader)
        for history in histories:  # a host that may not read has not seen them in its rebuild
            if history.incident is not None:
                await self._site.catalog.write(recall, history.name, history.incident)
        old_rules = rules_in_force(self._site.catalog)
        verdicts = _judge(
            histories,
            rules,
            default,
            now_us=now_us,
            timezone=timezone,
            only=only,
            old_rules=old_rules,
        )
        _check_frozen(verdicts, only)
        losses = _losses(verdicts, old_rules, now_us=now_us, timezone=timezone)
        await self._check_losses(verdicts, old_rules, losses, accept=accept_loss)
        reports = _reports(verdicts)
        if not is_finished:
            return RetentionReport(points=reports, is_postponed=True)
        for history in histories:
            for damage in history.damage:
                raise VaultDamaged(f"{damage.name}: {damage.what}", name=damage.name)
        self._written = await root_points(self._site, reader, verdicts, self._progress)
        return await self._drop(verdicts, reports)

    async def _check_losses(
        self,
        verdicts: Sequence[Verdict],
        old_rules: Rules,
        losses: Mapping[str, float],
        *,
        accept: bool,
    ) -> None:
        for name, loss in losses.items():
            if loss > retention.LOSS_RATIO_MAX and not accept:
                raise PolicyRefused(
                    f"the changed policy would drop {loss:.0%} of the points of {name}"
                )
        new = dict(old_rules)
        new.update({v.history.name: v.rule for v in verdicts if v.rule is not None})
        if new != old_rules:
            await self._site.catalog.write(put_value, _RULES, _encoded(new))

    async def _drop(
        self, verdicts: Sequence[Verdict], reports: tuple[PointReport, ...]
    ) -> RetentionReport:
        """Prove the checkpoints, cut the journal, drop checkpoints, and collect."""
        with closing(LiveSet()) as live:
            return await self._drop_with(live, verdicts, reports)

    async def _drop_with(
        self, live: LiveSet, verdicts: Sequence[Verdict], reports: tuple[PointReport, ...]
    ) -> RetentionReport:
        site = self._site
        since = await site.catalog.read(newest_number)
        known = await site.catalog.read(known_objects)
        reader = StateReader(site.vault)  # one that sees what was written
        await prove_roots(reader, verdicts, self._written, live, self._progress)
        heads = await reader.heads()
        cut = choose_cut(heads, verdicts, lambda head: _is_settled(known, head.name))
        await self._move_roots_on(heads, cut, verdicts)
        roots = roots_to_drop(verdicts)
        roots_us = {
            v.history.roots[n].at_us for v in verdicts for n in roots if n in v.history.roots
        }
        outcome = Outcome()
        if await self._is_overtaken(verdicts):
            outcome.is_postponed = True
        elif cut or roots:
            doomed = await self._doomed(heads, cut, roots, known)
            outcome = await self._collect(live, verdicts, heads, doomed, since, known)
        if not outcome.is_postponed:
            end_us = cut[-1].end_us if cut else 0
            reports = tuple(_settled(report, roots_us, end_us) for report in reports)
        return RetentionReport(
            points=reports,
            checkpoints_written=len(self._written),
            deleted_objects=len(outcome.deleted),
            cancelled_objects=len(outcome.cancelled),
            reclaimed_bytes=outcome.reclaimed_bytes,
            moved_bytes=outcome.moved_bytes,
            is_postponed=outcome.is_postponed,
            damage=tuple(outcome.damage),
        )

    async def _is_overtaken(self, verdicts: Sequence[Verdict]) -> bool:
        """Say whether a source became suspect after it was decided what of it may go."""
        judged = [verdict.history.name for verdict in verdicts if verdict.rule is not None]
        return bool(await self._site.catalog.read(suspects_among, judged))

    async def _move_roots_on(
        self, heads: Sequence[SegmentHead], cut: Sequence[SegmentHead], verdicts: Sequence[Verdict]
    ) -> None:
        """Let checkpoints of quiet sources reach beyond the cut."""
        vault = self._site.vault
        for root, head in list(roots_to_move_on(heads, cut, verdicts)):
            row = SegmentRow(head.position, head.name, head.size_bytes)
            segment = await JournalReader(vault, head.writer).read_segment(row)
            mark = JournalMark(head.writer, *head.position, segment.hash)
            fresh = moved_on(root, mark)
            # It needs what the root before it needed, and is uploaded after that one.
            name = await publish_root(self._site, fresh, ())
            self._written.append(Rooted(name, SourceId(root.source), fresh.state))
            for verdict in verdicts:
                if verdict.history.id == root.source:
                    verdict.history.roots[name] = fresh

    async def _doomed(
        self,
        heads: Sequence[SegmentHead],
        cut: Sequence[SegmentHead],
        roots: Sequence[BlobName],
        known: Mapping[str, KnownObject],
    ) -> Doomed:
        keys = self._site.vault.keys
        first_kept = heads[len(cut)].position.epoch if len(cut) < len(heads) else 0
        prefix = layout.epoch_prefix(keys.domain, keys.writer)
        epochs = [
            info.name
            async for info in self._site.vault.store.scan(prefix)
            if (epoch := layout.parse_epoch_name(info.name)) is not None
            and epoch < first_kept
            and _is_settled(known, info.name)
        ]
        names = [*roots, *(head.name for head in cut), *epochs]
        return Doomed(
            roots=tuple(roots),
            segments=tuple(head.name for head in cut),
            epochs=tuple(epochs),
            sizes={name: known[name].size for name in names if name in known},
        )

    async def _collect(
        self,
        live: LiveSet,
        verdicts: Sequence[Verdict],
        heads: Sequence[SegmentHead],
        doomed: Doomed,
        since: int,
        known: dict[str, KnownObject],
    ) -> Outcome:
        site = self._site
        await self._mark(live, heads, doomed, since)
        # Made after the marking of the journal: it sees every object that was referred to.
        chunks = ChunkReader(site.vault)
        every = {name: root for v in verdicts for name, root in v.history.roots.items()}
        kept = every.keys() - set(doomed.roots)
        for name in sorted(kept):
            await live.mark_checkpoint(every[name], chunks)
        await live.mark_lists(chunks)
        collector = Collector(site, live, chunks, self._generations, since=since, known=known)
        fresh = await site.catalog.read(known_objects)
        collector.await_too(fresh[name].number for name in kept if name in fresh)
        return await collector.run(doomed, self._quiesce, self._is_durable, self._progress)

    async def _mark(
        self,
        live: LiveSet,
        heads: Sequence[SegmentHead],
        doomed: Doomed,
        since: int,
    ) -> None:
        """Mark what the journal that stays and the catalog refer to."""
        site = self._site
        self._progress("mark", 0, 0)
        after = None
        if doomed.segments:
            head = heads[len(doomed.segments) - 1]
            row = SegmentRow(head.position, head.name, head.size_bytes)
            last = await JournalReader(site.vault, head.writer).read_segment(row)
            after = JournalMark(head.writer, *head.position, last.hash)
        journal = JournalReader(site.vault, site.vault.keys.writer)
        async for segment in journal.journal(after):
            await live.mark_records(segment.records(site.vault.keys.secret_for))
        await read_fresh_segments(site, live, since)
        with closing(site.catalog.open_reader()) as connection:
            await live.mark_catalog(connection, proven_in_catalog(self._written))
        await segments_are_put(site)

    async def _is_durable(self, numbers: Sequence[int]) -> bool:
        """Wait a while for objects to arrive in the vault of record; say whether they did."""
        return await self._site.are_durable(numbers, patience_seconds=self._patience)


def _settled(report: PointReport, roots_us: set[int], end_us: int) -> PointReport:
    """Return a report after the run: what it dropped, and nothing is overdue any more."""
    dropped = sum(
        not point.keep and (point.at_us in roots_us or point.at_us <= end_us)
        for point in report.points
    )
    return replace(report, expired_count=dropped, overdue_count=0)


def _is_settled(known: Mapping[str, KnownObject], name: str) -> bool:
    """Whether an object is where it belongs, not on its way."""
    return name not in known or known[name].state == ObjectState.VAULT
