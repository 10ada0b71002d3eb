"""A catalog made again from the vault is as good as the one that was lost."""

import random
import sqlite3

import pytest
from unit.maintenance.smallhost import DAY_US, SmallHost

from streamd.catalog.db import FILE_NAME
from streamd.catalog.journal import load_head
from streamd.maintenance import expire
from streamd.maintenance.checkpointing import checkpoint_current
from streamd.maintenance.generations import read_doomed
from streamd.maintenance.rebuild import rebuild
from streamd.policy.retention import Rule

COMPARED = (
    "SELECT name, id, info, total, key_count FROM source ORDER BY name",
    "SELECT fid, type, mode, uid, gid, size, mtime_ns, nlink, links, version FROM node ORDER BY 1",
    "SELECT d.parent, d.name, d.fid, d.type FROM dirent d WHERE d.parent > 0 ORDER BY 1, 2",
    "SELECT name, kind, size, state FROM object ORDER BY name",
    "SELECT id FROM chunk ORDER BY id",
)


@pytest.fixture
def host(tmp_path):
    host = SmallHost(tmp_path)
    yield host
    host.catalog.close()


async def _history(host: SmallHost) -> None:
    for day in range(8):
        host.clock.us += DAY_US
        await host.capture("web", {b"a": b"%d" % day, b"same": b"s" * 70_000, b"b": b"x" * 5000})
        await host.capture("db", {b"a": b"%d" % day * 1000})
    await host.reopen()
    await host.capture("web", {b"last": b"one"})


def _facts(host: SmallHost) -> list[list[tuple]]:
    with host.catalog.reader() as connection:
        return [connection.execute(query).fetchall() for query in COMPARED]


@pytest.mark.asyncio
async def test_it_holds_what_the_lost_one_held(host) -> None:
    await _history(host)
    before, head = _facts(host), await host.catalog.read(load_head)
    fid = host.next_fid
    host.catalog.close()
    (host.directory / FILE_NAME).unlink()
    report = await rebuild(host.vault, str(host.directory), clock=host.clock)
    assert (report.sources, report.files) == (2, 4)
    host.open()
    assert _facts(host) == before
    assert await host.catalog.read(load_head) == head
    assert host.next_fid > fid


@pytest.mark.asyncio
async def test_a_host_goes_on_with_it(host) -> None:
    await _history(host)
    await expire.run(host.site, {}, default=Rule(continuous_us=DAY_US, daily=3))
    host.catalog.close()
    await rebuild(host.vault, str(host.directory), clock=host.clock)
    host.open()
    host.clock.us += DAY_US
    files = {b"last": b"two", b"same": b"s" * 70_000}
    at_us = await host.capture("web", files)
    assert await host.files_at("web", at_us) == files
    assert (await checkpoint_current(host.site, "web")) is not None
    assert (await checkpoint_current(host.site, "web")) is None
    await expire.run(host.site, {}, default=Rule(continuous_us=DAY_US, daily=3))
    assert await host.files_at("web", at_us) == files


@pytest.mark.asyncio
async def test_a_new_epoch_without_segments_is_gone_on_with(host) -> None:
    await _history(host)
    await host.put_all(await host.catalog.write(host.journal.seal))
    await host.reopen()
    host.catalog.close()
    await rebuild(host.vault, str(host.directory), clock=host.clock)
    host.open()
    at_us = await host.capture("web", {b"x": b"y"})
    assert await host.files_at("web", at_us) == {b"x": b"y"}


@pytest.mark.asyncio
async def test_what_a_final_list_names_is_not_built_upon(host, monkeypatch) -> None:
    precious = random.Random(4).randbytes(9000)
    await host.capture("web", {b"precious": precious})
    await _history(host)

    async def dies(*_: object) -> bool:
        return False

    monkeypatch.setattr("streamd.maintenance.generations.Generations.carry_out", dies)
    report = await expire.run(host.site, {}, default=Rule())
    assert report.is_postponed
    monkeypatch.undo()
    assert any("/p/" in name for name in await read_doomed(host.vault))
    host.catalog.close()
    await rebuild(host.vault, str(host.directory), clock=host.clock)
    host.open()
    files = {b"precious": precious}  # only the doomed pack still holds it
    at_us = await host.capture("web", files)
    await expire.run(host.site, {}, default=Rule())
    assert await host.files_at("web", at_us) == files


@pytest.mark.asyncio
async def test_a_crash_leaves_no_half_catalog(host, monkeypatch) -> None:
    await _history(host)
    host.catalog.close()
    (host.directory / FILE_NAME).unlink()

    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("streamd.maintenance.rebuild._move_in", dies)
    with pytest.raises(KeyboardInterrupt):
        await rebuild(host.vault, str(host.directory), clock=host.clock)
    assert not (host.directory / FILE_NAME).exists()
    monkeypatch.undo()
    await rebuild(host.vault, str(host.directory), clock=host.clock)
    with sqlite3.connect(host.directory / FILE_NAME) as connection:
        assert connection.execute("SELECT count(*) FROM node").fetchone()[0] == 4
    connection.close()
    host.open()
