"""Whatever happens to the state directory, the daemon makes its catalog again and goes on."""

import os
import shutil

import pytest
from unit.maintenance.smallhost import HOUR_US, SmallHost

from streamd.catalog.db import FILE_NAME, get_int
from streamd.catalog.journal import blind_since, load_head
from streamd.daemon.compose import Stores
from streamd.daemon.opening import DAMAGED_SUFFIX, open_catalog
from streamd.maintenance.checkpoint_due import checkpoint_due
from streamd.maintenance.runs import keep_runs
from streamd.storage.local import LocalBlobStore

FILES = {b"a": b"one", b"large": b"l" * 9_000}


@pytest.fixture
def host(tmp_path):
    (tmp_path / "state").mkdir()
    host = SmallHost(tmp_path / "state", store=LocalBlobStore(str(tmp_path / "vault"), create=True))
    yield host
    host.catalog.close()


async def reopened(host: SmallHost):
    """Open the catalog as the daemon does; return it."""
    store = host.store
    return await open_catalog(
        str(host.directory), host.vault, Stores(store, None, store), host.clock
    )


async def captured(host: SmallHost) -> None:
    await host.catalog.write(
        lambda c: c.execute("INSERT OR REPLACE INTO meta VALUES ('identity', ?)", (identity(host),))
    )
    await host.capture("web", FILES)
    host.clock.us += HOUR_US
    await host.capture("web", {**FILES, b"b": b"two"})


def identity(host: SmallHost) -> bytes:
    return host.vault.identity + host.vault.keys.writer


def facts(catalog) -> list:
    with catalog.reader() as connection:
        return [
            connection.execute(query).fetchall()
            for query in (
                "SELECT name, id, info, total, key_count FROM source",
                "SELECT fid, size, version FROM node ORDER BY 1",
                "SELECT name, kind, size, state FROM object ORDER BY name",
                "SELECT id FROM chunk ORDER BY id",
            )
        ]


def damage(directory, how: str) -> None:
    path = directory / FILE_NAME
    for suffix in ("-wal", "-shm"):
        (directory / (FILE_NAME + suffix)).unlink(missing_ok=True)
    data = path.read_bytes()
    if how == "deleted":
        shutil.rmtree(directory)
        directory.mkdir()
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "truncated":
        path.write_bytes(data[: len(data) // 2])
    elif how == "garbage":
        path.write_bytes(os.urandom(len(data)))
    elif how == "a page":
        path.write_bytes(data[: 3 * 4096] + os.urandom(2 * 4096) + data[5 * 4096 :])
    elif how == "another schema":
        path.write_bytes(data[:60] + (99).to_bytes(4, "big") + data[64:])
    else:
        raise AssertionError(how)


KINDS = ["deleted", "empty", "truncated", "garbage", "a page", "another schema"]


@pytest.mark.asyncio
@pytest.mark.parametrize("has_index", [False, True])
@pytest.mark.parametrize("how", KINDS)
async def test_a_damaged_catalog_is_set_aside_and_made_again(host, how, has_index) -> None:
    await captured(host)
    if has_index:
        await keep_runs(host.site, host.store)
        await host.capture("web", {**FILES, b"c": b"not in the index"})
    before, last_us = facts(host.catalog), host.clock.us
    await host.catalog.aclose()
    damage(host.directory, how)
    host.catalog = await reopened(host)
    assert facts(host.catalog) == before
    covered_us = await host.catalog.read(get_int, "covered:web")
    assert 0 < covered_us <= last_us + 10  # the gap begins with the last record
    aside = [name for name in os.listdir(host.directory) if name.endswith(DAMAGED_SUFFIX)]
    assert aside
    host.catalog.close()
    host.open()
    files = {b"goes": b"on"}
    at_us = await host.capture("web", files)
    assert await host.files_at("web", at_us) == files


@pytest.mark.asyncio
async def test_an_older_copy_of_the_state_is_found_out_and_nothing_is_overwritten(host) -> None:
    """A virtual machine put back to a snapshot, with the vault elsewhere."""
    await captured(host)
    await host.catalog.aclose()
    copy = host.directory.with_name("copy")
    shutil.copytree(host.directory, copy)
    host.open()
    truth = {}
    for index in range(3):
        host.clock.us += HOUR_US
        files = {**FILES, b"new": b"%d" % index * 2000}
        truth[await host.capture("web", files)] = files
    before, head = facts(host.catalog), await host.catalog.read(load_head)
    await host.catalog.aclose()
    shutil.rmtree(host.directory)
    copy.rename(host.directory)
    host.catalog = await reopened(host)
    assert facts(host.catalog) == before
    assert await host.catalog.read(load_head) == head
    host.catalog.close()
    host.open()
    at_us = await host.capture("web", {b"after": b"the snapshot"})
    for each, files in (*truth.items(), (at_us, {b"after": b"the snapshot"})):
        assert await host.files_at("web", each) == files


@pytest.mark.asyncio
@pytest.mark.parametrize("victim", ["middle", "last"])
@pytest.mark.parametrize("how", ["junk", "gone"])
async def test_with_a_damaged_journal_too_it_begins_the_source_anew(host, victim, how) -> None:
    """Protection goes on, whatever the past looks like; and the new part is not tied to it."""
    await captured(host)
    for index in range(3):
        host.clock.us += HOUR_US
        await host.capture("web", {**FILES, b"more": b"%d" % index})
    names = [name for name in await host.names() if "/j/" in name]
    name = names[-1 if victim == "last" else 2]
    path = host.store.path_of(name)
    if how == "gone":
        os.unlink(path)
    else:
        size = os.path.getsize(path)
        with open(path, "wb") as file:
            file.write(os.urandom(size))
    await host.catalog.aclose()
    damage(host.directory, "deleted")
    host.catalog = await reopened(host)
    if (victim, how) == ("last", "gone"):
        return  # nothing shows that there was one: the state is that before it
    assert await host.catalog.read(blind_since, b"") > 0
    host.catalog.close()
    host.open()
    files = {**FILES, b"fresh": b"start"}
    await host.capture("web", files)
    assert await checkpoint_due(host.site, ["web"]) == 1
    host.clock.us += HOUR_US
    files[b"next"] = b"one"
    at_us = await host.capture("web", files)
    assert await host.files_at("web", at_us) == files
