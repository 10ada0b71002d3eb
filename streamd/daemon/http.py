"""The HTTP window of the daemon: metrics and health, for machines on the same host.

    GET /metrics      what Prometheus scrapes (OpenMetrics if asked for, else the text format)
    GET /healthz      200 while the process works, 503 when it says why it does not
    GET /protectedz   200 only while every source is inside its RPO at every destination, else 503

The two health pages answer with JSON. Nothing here changes anything, nothing needs a login, and
nothing names a file: listen on loopback unless the network in between is yours.
"""

import asyncio
import json
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from streamd.errors import ConfigInvalid

_SHUTDOWN_SECONDS: Final = 2.0


class Protection(NamedTuple):
    """How one source stands at one destination, as /protectedz shows it."""

    source: str
    destination: str
    lag_seconds: float
    rpo_seconds: float
    problem: str = ""  # why it is not protected although nothing lags, such as a missing root

    @property
    def protected(self) -> bool:
        """Whether a loss of the host now would stay inside the RPO."""
        return not self.problem and self.lag_seconds <= self.rpo_seconds


class HttpServer:
    """Serves the three pages. `problem` returns "" while the process is well.

    `problem` and `protection` run on the event loop and must not block; the registry's collectors
    run in a thread of their own: whoever asks because all others are busy must be answered.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        *,
        problem: Callable[[], str],
        protection: Callable[[], tuple[Protection, ...]],
    ) -> None:
        self._registry = registry
        self._problem = problem
        self._protection = protection
        self._runner: web.AppRunner | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="metrics")

    async def start(self, host: str, port: int) -> int:
        """Listen there and return the port, a free one if it was 0.

        Raises ConfigInvalid if the address is not ours or is taken.
        """
        app = web.Application()
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/protectedz", self._protectedz)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN_SECONDS)
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            await runner.cleanup()
            raise ConfigInvalid(
                f"metrics.listen: cannot listen on {host} port {port}: {error.strerror}"
            ) from error
        self._runner = runner
        bound: int = runner.addresses[0][1]
        return bound

    async def aclose(self) -> None:
        """Stop listening; requests under way have two seconds."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()
        self._thread.shutdown(wait=False)

    async def _metrics(self, request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        # thousands of series take longer than the loop should wait
        loop = asyncio.get_running_loop()
        body = await loop.run_in_executor(self._thread, encode, self._registry)
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def _healthz(self, _request: web.Request) -> web.Response:
        problem = self._problem()
        return _json({"healthy": not problem, "problem": problem}, ok=not problem)

    async def _protectedz(self, _request: web.Request) -> web.Response:
        rows = self._protection()
        # without a source nothing is protected: an empty configuration is no success
        protected = bool(rows) and all(row.protected for row in rows)
        sources = [_facts(row) for row in rows]
        return _json({"protected": protected, "sources": sources}, ok=protected)


def _facts(row: Protection) -> dict[str, object]:
    # never protected at all is an infinite lag, for which JSON has no number
    lag = row.lag_seconds if math.isfinite(row.lag_seconds) else None
    return {**row._asdict(), "lag_seconds": lag, "protected": row.protected}


def _json(body: dict[str, object], *, ok: bool) -> web.Response:
    status = web.HTTPOk.status_code if ok else web.HTTPServiceUnavailable.status_code
    return web.json_response(
        body, status=status, headers={"Cache-Control": "no-store"}, dumps=_dumps
    )


def _dumps(body: object) -> str:
    return json.dumps(body, allow_nan=False) + "\n"
