"""The pages of the daemon, asked over a real socket."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import aiohttp
import pytest
from prometheus_client import CollectorRegistry

from streamd.daemon.http import HttpServer, Protection
from streamd.errors import ConfigInvalid
from streamd.observe.metrics import Metrics

GOOD = Protection("web", "vault", 3.0, 15.0)


@asynccontextmanager
async def asking(
    *, problem: str = "", protection: tuple[Protection, ...] = ()
) -> AsyncIterator[aiohttp.ClientSession]:
    registry = CollectorRegistry()
    Metrics(registry).add_source("web", 15)
    server = HttpServer(registry, problem=lambda: problem, protection=lambda: protection)
    port = await server.start("127.0.0.1", 0)
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
        yield session
    await server.aclose()
    await server.aclose()  # closing twice is harmless


@pytest.mark.asyncio
async def test_metrics_come_in_the_text_format() -> None:
    async with asking() as session, session.get("/metrics") as response:
        assert response.status == 200
        assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        assert 'streamd_rpo_target_seconds{source="web"} 15.0\n' in await response.text()


@pytest.mark.asyncio
async def test_metrics_come_as_openmetrics_when_asked_for() -> None:
    accept = {"Accept": "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"}
    async with asking() as session, session.get("/metrics", headers=accept) as response:
        assert response.headers["Content-Type"].startswith("application/openmetrics-text")
        assert (await response.text()).endswith("# EOF\n")


@pytest.mark.asyncio
async def test_metrics_come_while_every_other_thread_is_busy() -> None:
    loop, end = asyncio.get_running_loop(), threading.Event()
    pool = ThreadPoolExecutor(2)
    loop.set_default_executor(pool)
    busy = [loop.run_in_executor(None, end.wait, 60) for _ in range(8)]
    try:
        async with asking() as session, asyncio.timeout(30), session.get("/metrics") as response:
            assert response.status == 200
            assert not any(one.done() for one in busy)
    finally:
        end.set()
        await asyncio.gather(*busy)


@pytest.mark.asyncio
@pytest.mark.parametrize(("problem", "status"), [("", 200), ("the event loop is stuck", 503)])
async def test_health_says_what_is_wrong(problem: str, status: int) -> None:
    async with asking(problem=problem) as session, session.get("/healthz") as response:
        assert response.status == status
        assert await response.json() == {"healthy": not problem, "problem": problem}


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("protection", "status"),
    [
        ((GOOD,), 200),
        ((GOOD._replace(lag_seconds=15.0),), 200),
        ((GOOD, GOOD._replace(destination="local", lag_seconds=15.1)), 503),
        ((GOOD._replace(problem="source-missing"),), 503),
        ((), 503),  # nothing configured is nothing protected
    ],
)
async def test_protected_means_every_source_inside_its_rpo(protection, status) -> None:
    async with asking(protection=protection) as session, session.get("/protectedz") as response:
        assert response.status == status
        body = await response.json()
        assert body["protected"] == (status == 200)
        assert len(body["sources"]) == len(protection)


@pytest.mark.asyncio
async def test_a_source_never_protected_has_no_lag_to_show() -> None:
    never = GOOD._replace(lag_seconds=float("inf"))
    async with asking(protection=(never,)) as session, session.get("/protectedz") as response:
        assert response.status == 503
        assert (await response.json())["sources"] == [
            {
                "source": "web",
                "destination": "vault",
                "lag_seconds": None,
                "rpo_seconds": 15.0,
                "problem": "",
                "protected": False,
            }
        ]


@pytest.mark.asyncio
async def test_nothing_else_is_served() -> None:
    async with asking() as session:
        async with session.get("/") as response:
            assert response.status == 404
        async with session.post("/healthz") as response:
            assert response.status == 405


@pytest.mark.asyncio
async def test_an_address_in_use_is_a_configuration_error() -> None:
    server = HttpServer(CollectorRegistry(), problem=str, protection=tuple)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConfigInvalid, match=r"metrics\.listen: cannot listen"):
            await server.start("127.0.0.1", taken.getsockname()[1])
