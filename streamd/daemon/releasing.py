"""Release a suspect source: from then on its points are thinned again, as the policy says."""

import asyncio
from typing import TYPE_CHECKING, Final, cast

import msgspec

from streamd.catalog import suspicion
from streamd.catalog.dirty import EVER
from streamd.daemon.host import Host
from streamd.effects import MICROSECONDS
from streamd.errors import NotDurableYet, NotFound, UsageInvalid
from streamd.model.record import RELEASED
from streamd.observe.logging import get_logger
from streamd.pipeline.channel import LIVE
from streamd.pipeline.commit import SourceIdentity
from streamd.pipeline.findings import Finding, Ready
from streamd.pipeline.in_flight import InFlight
from streamd.pipeline.jobs import Stream

if TYPE_CHECKING:
    from streamd.sources.port import Source

PATIENCE_SECONDS: Final = 20.0  # for the pipeline; the control socket waits for 30 s
_LOG: Final = get_logger("incidents")


class ReleaseFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What was released: the answer of the control socket and of `--json`. Times in µs."""

    source: str
    reason: str
    files: int
    before_us: int  # of the last point that is certainly good
    hold_until_us: int  # until when that is kept


def release_args(source: str, hold_seconds: int) -> dict[str, object]:
    """Return the arguments of a request to release."""
    return {"source": source, "hold_seconds": hold_seconds}


async def release(host: Host, args: dict[str, object]) -> ReleaseFacts:
    """Let retention thin a source again; the answer to `retention-release`.

    The point before the incident is held for `hold_seconds`. Ends when that is durable in the local
    vault; the pipeline has to run. Raises NotFound if the source is not suspect, UsageInvalid, and
    NotDurableYet when the pipeline does not get it done in time.
    """
    name, seconds = str(args.get("source", "")), args.get("hold_seconds", 0)
    if not isinstance(seconds, int) or seconds < 0:
        raise UsageInvalid("hold_seconds of the request is not a number of seconds")
    incident = await host.catalog.read(suspicion.incident_of, name)
    known = await host.catalog.read(suspicion.identity_of, name)
    if incident is None or known is None:
        raise NotFound(f'the source "{name}" is not suspect: there is nothing to release')
    until_us = host.clock.now_us() + seconds * MICROSECONDS if seconds else 0
    mark = msgspec.structs.replace(incident, kind=RELEASED, hold_until_us=until_us)
    done = asyncio.Event()

    def committed(_: Ready, __: int) -> None:
        done.set()

    stream = Stream(
        source=cast("Source", None),  # nothing is read: it may not be configured any more
        identity=SourceIdentity(name, known.id, known.info),
        in_flight=InFlight(),
        number=known.number,
        on_committed=committed,
    )
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await host.pipeline.submit(stream, LIVE, Finding(), first_us=EVER, marks=[mark])
            await done.wait()
    except TimeoutError as error:
        raise not_durable_yet(host, name) from error
    _LOG.warning("source-released", source=name, reason=incident.reason, files=incident.file_count)
    return ReleaseFacts(
        source=name,
        reason=incident.reason,
        files=incident.file_count,
        before_us=incident.point_us,
        hold_until_us=until_us,
    )


def not_durable_yet(host: Host, source: str) -> NotDurableYet:
    """Return the error that says why the release of a source takes so long, as far as is known."""
    is_full = host.spool is not None and host.spool.full_since_us
    why = "the local copy is full" if is_full else "nothing can be recorded in the vault"
    return NotDurableYet(
        f'"{source}" is not released yet: {why}, and {PATIENCE_SECONDS:g} s were not enough'
    )


async def release_here(host: Host, args: dict[str, object]) -> ReleaseFacts:
    """Do the same where no daemon runs: with a pipeline for this alone, and to its end."""
    async with asyncio.TaskGroup() as group:
        pipeline = group.create_task(host.pipeline.run(), name="pipeline")
        facts = await release(host, args)
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await host.pipeline.drain()
                await pipeline
                await host.finish()
        except TimeoutError as error:
            raise not_durable_yet(host, facts.source) from error
    return facts
