"""Restoring from a directory vault into a real directory: what comes back, and what is left alone."""

import os
import random
import stat

import pytest
from vaultbuilder import VaultBuilder, version_of

from streamd.effects import SystemClock
from streamd.errors import NotFound, SpaceMissing, TargetConflict, UsageInvalid
from streamd.format.keys import Role
from streamd.model.entry import ContentRun, EntryType
from streamd.restore.plan import OnConflict
from streamd.restore.session import RestoreRequest, RestoreSession, Selection
from streamd.storage.local import LocalBlobStore

LATEST = (1 << 63) - 1
ROOT = os.geteuid() == 0


def content_of(path) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def put_content(path, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


async def restore(builder, target, *, source="web", paths=(b"",), **options):
    request = RestoreRequest(
        selections=[Selection(source, tuple(paths))],
        at_us=options.pop("at_us", LATEST),
        target=None if target is None else os.fsencode(target),
        **options,
    )
    return await RestoreSession(builder.vault, request, clock=SystemClock()).run()


async def vault_with_tree(tmp_path, *, packed=True):
    """A small tree with one of everything."""
    builder = VaultBuilder(LocalBlobStore(tmp_path / "vault", create=True))
    web = builder.source("web", b"/srv/www")
    web.directory(b"/srv/www", mode=0o751, mtime_ns=1_111_111_111_222_222_222)
    web.directory(b"/srv/www/sub", mode=0o500, mtime_ns=5)
    web.file(b"/srv/www/empty")
    web.file(b"/srv/www/small\xff\n", b"hello", mode=0o4755, uid=12, gid=34, nlink=1)
    web.file(b"/srv/www/sub/big", noise(1_000_000), xattrs=((b"user.k", b"v"),))
    web.file(b"/srv/www/two", b"linked", nlink=2)
    web.link(b"/srv/www/sub/names", b"/srv/www/two")
    web.symlink(b"/srv/www/link", b"../nowhere", mtime_ns=77)
    web.entry(b"/srv/www/fifo", version_of(EntryType.FIFO, mode=0o640))
    runs = [
        ContentRun(None, 1 << 20),
        *builder.store_content(noise(70_000, 2)),
        ContentRun(None, 1 << 20),
    ]
    web.runs_file(b"/srv/www/sparse", runs)
    await builder.commit(packed=packed)
    return builder, web


@pytest.mark.asyncio
@pytest.mark.parametrize("packed", [False, True])
async def test_everything_comes_back_as_it_was(tmp_path, packed):
    builder, _ = await vault_with_tree(tmp_path, packed=packed)
    out = tmp_path / "out"
    report = await restore(builder, out, verify=True)
    assert not report.refused
    assert report.file_count == 7
    assert report.verified_count == 5
    status = os.stat(out)
    assert (stat.S_IMODE(status.st_mode), status.st_mtime_ns) == (0o751, 1_111_111_111_222_222_222)
    assert stat.S_IMODE(os.stat(out / "sub").st_mode) == 0o500
    assert os.stat(out / "sub").st_mtime_ns == 5
    small = os.fsencode(out) + b"/small\xff\n"
    assert content_of(small) == b"hello"
    if ROOT:
        assert stat.S_IMODE(os.stat(small).st_mode) == 0o4755
        assert (os.stat(small).st_uid, os.stat(small).st_gid) == (12, 34)
    assert os.stat(small).st_mtime_ns == 1_700_000_000_123_456_789
    assert (out / "sub/big").read_bytes() == noise(1_000_000)
    assert os.getxattr(out / "sub/big", "user.k") == b"v"
    assert os.readlink(out / "link") == "../nowhere"
    assert os.lstat(out / "link").st_mtime_ns == 77
    assert os.stat(out / "two").st_ino == os.stat(out / "sub/names").st_ino
    assert stat.S_ISFIFO(os.stat(out / "fifo").st_mode)
    assert stat.S_IMODE(os.stat(out / "fifo").st_mode) == 0o640
    sparse = (out / "sparse").read_bytes()
    assert sparse == bytes(1 << 20) + noise(70_000, 2) + bytes(1 << 20)
    assert os.stat(out / "sparse").st_blocks * 512 < 1 << 20
    assert (out / "empty").stat().st_size == 0
    assert not [name for name in os.listdir(out) if name.startswith(".streamd")]


@pytest.mark.asyncio
async def test_a_second_restore_writes_nothing(tmp_path):
    builder, _ = await vault_with_tree(tmp_path)
    out = tmp_path / "out"
    await restore(builder, out)
    before = os.stat(out / "sub/big").st_ino
    report = await restore(builder, out)
    assert (report.equal_count, report.file_count) == (7, 0)
    assert report.content_bytes == 0
    assert os.stat(out / "sub/big").st_ino == before


@pytest.mark.asyncio
async def test_what_is_named_becomes_the_target(tmp_path):
    builder, _ = await vault_with_tree(tmp_path)
    await restore(builder, tmp_path / "a", paths=[b"/srv/www/sub"])
    assert sorted(os.listdir(tmp_path / "a")) == ["big", "names"]
    await restore(builder, tmp_path / "b", paths=[b"sub/big"])
    assert os.listdir(tmp_path / "b") == ["big"]
    await restore(builder, tmp_path / "c", paths=[b"sub/big", b"two"])
    assert sorted(os.listdir(tmp_path / "c/srv/www")) == ["sub", "two"]
    with pytest.raises(NotFound):
        await restore(builder, tmp_path / "d", paths=[b"nope"])


@pytest.mark.asyncio
async def test_a_source_of_several_paths_keeps_them_apart(tmp_path):
    builder = VaultBuilder()
    both = builder.source("both", b"/srv/a", b"/etc/hosts")
    both.directory(b"/srv/a", mode=0o700)
    both.file(b"/srv/a/x", b"1")
    both.file(b"/etc/hosts", b"2")
    await builder.commit()
    await restore(builder, tmp_path / "out", source="both")
    assert (tmp_path / "out/srv/a/x").read_bytes() == b"1"
    assert (tmp_path / "out/etc/hosts").read_bytes() == b"2"
    assert stat.S_IMODE(os.stat(tmp_path / "out/srv/a").st_mode) == 0o700
    with pytest.raises(UsageInvalid):
        await restore(builder, tmp_path / "x", source="both", paths=[b"relative"])


@pytest.mark.asyncio
async def test_by_default_a_conflict_is_refused_before_the_first_byte(tmp_path):
    builder, _ = await vault_with_tree(tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    (out / "two").write_bytes(b"mine")
    with pytest.raises(TargetConflict, match="two"):
        await restore(builder, out)
    assert os.listdir(out) == ["two"]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("rule", "kept", "count"),
    [
        (OnConflict.SKIP, b"mine", 6),
        (OnConflict.OVERWRITE, b"linked", 7),
        (OnConflict.KEEP_BOTH, b"mine", 7),
        (OnConflict.NEWER, b"mine", 6),
    ],
)
async def test_each_conflict_rule_does_what_it_says(tmp_path, rule, kept, count):
    builder, _ = await vault_with_tree(tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    (out / "empty").write_bytes(b"mine")
    (out / "two").write_bytes(b"mine")
    report = await restore(builder, out, on_conflict=rule)
    assert (out / "two").read_bytes() == kept
    # the other name of the same file is restored in any case
    assert (out / "sub/names").read_bytes() == b"linked"
    others = [name for name in os.listdir(out) if "restored" in name]
    assert len(others) == (2 if rule is OnConflict.KEEP_BOTH else 0)
    assert report.file_count >= count - 1


@pytest.mark.asyncio
async def test_newer_replaces_what_is_older(tmp_path):
    builder, _ = await vault_with_tree(tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    (out / "two").write_bytes(b"mine")
    os.utime(out / "two", ns=(5, 5))
    await restore(builder, out, on_conflict=OnConflict.NEWER)
    assert (out / "two").read_bytes() == b"linked"


@pytest.mark.asyncio
async def test_overwrite_puts_metadata_right_where_content_is_equal(tmp_path):
    builder, _ = await vault_with_tree(tmp_path)
    out = tmp_path / "out"
    await restore(builder, out)
    os.chmod(out / "two", 0o600)
    with pytest.raises(TargetConflict):
        await restore(builder, out)
    report = await restore(builder, out, on_conflict=OnConflict.OVERWRITE)
    assert report.content_bytes == 0
    assert stat.S_IMODE(os.stat(out / "two").st_mode) == 0o644


@pytest.mark.asyncio
async def test_same_size_and_time_do_not_make_a_file_equal(tmp_path):
    builder, _ = await vault_with_tree(tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    (out / "two").write_bytes(b"LINKED")
    os.chmod(out / "two", 0o644)
    os.utime(out / "two", ns=(1_700_000_000_123_456_789,) * 2)
    with pytest.raises(TargetConflict):
        await restore(builder, out)


@pytest.mark.asyncio
async def test_a_large_file_goes_on_where_a_killed_restore_stopped(tmp_path):
    builder = VaultBuilder(LocalBlobStore(tmp_path / "vault", create=True))
    web = builder.source("web", b"/w")
    web.directory(b"/w")
    data = noise(8_000_000)
    fid = web.file(b"/w/big", data)
    await builder.commit(packed=True)
    out = tmp_path / "out"
    out.mkdir()
    left = out / f".streamd-restore-{fid:x}"
    left.write_bytes(data[:6_000_000] + bytes(2_000_000))
    left.chmod(0o600)
    (out / ".streamd-restore-ffff").write_bytes(b"litter")
    report = await restore(builder, out)
    assert (out / "big").read_bytes() == data
    assert os.listdir(out) == ["big"]
    assert report.content_bytes < 2_200_000


@pytest.mark.asyncio
async def test_too_little_space_is_noticed_before_anything_is_written(tmp_path):
    builder = VaultBuilder()
    web = builder.source("web", b"/w")
    web.directory(b"/w")
    chunk = builder.store_content(b"x" * 1000)[0]
    web.runs_file(b"/w/huge", [ContentRun(chunk.id, 1 << 50)])
    await builder.commit()
    with pytest.raises(SpaceMissing):
        await restore(builder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.asyncio
async def test_a_dry_run_writes_nothing_and_foretells_the_same(tmp_path):
    builder, _ = await vault_with_tree(tmp_path)
    out = tmp_path / "out"
    told = await restore(builder, out, dry_run=True)
    assert not out.exists()
    done = await restore(builder, out)
    for each in ("file_count", "directory_count", "link_count", "content_bytes", "read_bytes"):
        assert getattr(told, each) == getattr(done, each), each


@pytest.mark.asyncio
async def test_damaged_content_costs_only_the_files_that_need_it(tmp_path):
    builder, web = await vault_with_tree(tmp_path)
    web.file(b"/srv/www/lost", noise(50_000, 9))
    pack = (await builder.pack(Role.DATA, builder.data))[0]
    builder.data = {}
    await builder.commit()
    path = builder.store.path_of(pack)
    data = bytearray(content_of(path))
    data[30_000] ^= 1
    os.chmod(path, 0o600)
    put_content(path, data)
    report = await restore(builder, tmp_path / "out")
    assert [each.path for each in report.refused] == [b"/srv/www/lost"]
    assert report.is_damaged
    assert [each.name for each in report.damage] == [pack]
    assert report.file_count == 7
    assert not (tmp_path / "out/lost").exists()


@pytest.mark.asyncio
async def test_in_place_goes_back_to_where_it_came_from(tmp_path):
    home = os.fsencode(tmp_path) + b"/home"
    builder = VaultBuilder()
    web = builder.source("web", home)
    web.directory(home)
    web.file(home + b"/f", b"old")
    await builder.commit()
    os.mkdir(home)
    put_content(home + b"/f", b"new")
    put_content(home + b"/other", b"stays")
    await restore(builder, None, on_conflict=OnConflict.OVERWRITE)
    assert content_of(home + b"/f") == b"old"
    assert sorted(os.listdir(home)) == [b"f", b"other"]


@pytest.mark.asyncio
async def test_an_earlier_instant_brings_the_earlier_content(tmp_path):
    builder = VaultBuilder()
    web = builder.source("web", b"/w")
    web.directory(b"/w")
    web.file(b"/w/f", b"one")
    await builder.commit()
    first = builder.clock.us
    builder.tick()
    web.file(b"/w/f", b"two")
    await builder.commit()
    await restore(builder, tmp_path / "then", at_us=first)
    await restore(builder, tmp_path / "now")
    assert (tmp_path / "then/f").read_bytes() == b"one"
    assert (tmp_path / "now/f").read_bytes() == b"two"
