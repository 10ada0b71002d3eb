"""Nothing in a vault, and nobody beside us, makes a restore write outside its target."""

import os
import random
import threading

import pytest
from vaultbuilder import VaultBuilder, encode, version_of

from streamd.effects import SystemClock
from streamd.model.entry import Dirent, EntryType
from streamd.model.record import dirent_key, version_key
from streamd.restore.plan import OnConflict
from streamd.restore.session import RestoreRequest, RestoreSession, Selection

LATEST = (1 << 63) - 1


class Arena:
    """A target, and beside it something that must not change."""

    def __init__(self, tmp_path) -> None:
        self.out = tmp_path / "jail" / "out"
        self.out.parent.mkdir()
        self.outside = tmp_path / "outside"
        self.outside.mkdir()
        (self.outside / "secret").write_bytes(b"s")
        os.chmod(self.outside, 0o711)
        self.before = self.look()

    def look(self):
        jail = sorted(os.listdir(self.out.parent))
        status = os.stat(self.outside)
        secret = os.stat(self.outside / "secret")
        return (
            [name for name in jail if name != "out"],
            sorted(os.listdir(self.outside)),
            (self.outside / "secret").read_bytes(),
            (status.st_mode, status.st_uid, secret.st_mode, secret.st_uid, secret.st_nlink),
        )

    async def restore(self, builder, **options):
        request = RestoreRequest(
            selections=[Selection("web")], at_us=LATEST, target=os.fsencode(self.out), **options
        )
        report = await RestoreSession(builder.vault, request, clock=SystemClock()).run()
        assert self.look() == self.before
        return report


def started():
    builder = VaultBuilder()
    web = builder.source("web", b"/w")
    web.directory(b"/w")
    return builder, web


def raw(web, parent: int, name: bytes, version, fid: int) -> None:
    web.set(dirent_key(parent, name), encode(Dirent(fid, version.type)))
    web.set(version_key(fid), encode(version))


FILE = version_of(EntryType.REGULAR)
DIRECTORY = version_of(EntryType.DIRECTORY, mode=0o755)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "name",
    [b"..", b".", b"../x", b"/etc/streamd-x", b"a/b", b"n\0ul", b"n" * 256, b".streamd-restore-5"],
)
@pytest.mark.parametrize("version", [FILE, DIRECTORY], ids=["file", "directory"])
async def test_names_that_could_lead_out_are_refused_one_by_one(tmp_path, name, version):
    arena = Arena(tmp_path)
    builder, web = started()
    web.file(b"/w/good", b"1")
    raw(web, web.fids[b"/w"], name, version, 99)
    raw(web, 99, b"below", FILE, 100)
    await builder.commit()
    report = await arena.restore(builder)
    assert os.listdir(arena.out) == ["good"]
    assert len(report.refused) == 1


@pytest.mark.asyncio
@pytest.mark.parametrize("root", [b"/..", b"/a/../../b", b"relative/../.."])
async def test_root_paths_that_could_lead_out_are_refused(tmp_path, root):
    arena = Arena(tmp_path)
    builder, web = started()
    raw(web, 1, root, FILE, 99)
    await builder.commit()
    report = await arena.restore(builder)
    assert [each.path for each in report.refused] == [root]


@pytest.mark.asyncio
async def test_odd_but_harmless_names_are_restored(tmp_path):
    arena = Arena(tmp_path)
    builder, web = started()
    names = [b"caf\xe9\n\x01", b"-rf", b"n" * 255, b"...", b" ", b"\xe2\x80\xaetxt"]
    for number, name in enumerate(names):
        raw(web, web.fids[b"/w"], name, FILE, 50 + number)
    await builder.commit()
    assert not (await arena.restore(builder)).refused
    assert sorted(os.listdir(os.fsencode(arena.out))) == sorted(names)


@pytest.mark.asyncio
@pytest.mark.parametrize("rule", list(OnConflict))
async def test_a_symbolic_link_in_the_target_is_never_followed(tmp_path, rule):
    arena = Arena(tmp_path)
    builder, web = started()
    web.directory(b"/w/dir")
    web.file(b"/w/dir/secret", b"X")
    web.file(b"/w/file", b"X")
    await builder.commit()
    arena.out.mkdir()
    (arena.out / "dir").symlink_to(arena.outside)
    (arena.out / "file").symlink_to(arena.outside / "secret")
    try:
        await arena.restore(builder, on_conflict=rule)
    except Exception as error:
        assert rule is OnConflict.FAIL, error
    assert arena.look() == arena.before
    if rule is OnConflict.OVERWRITE:
        assert (arena.out / "dir/secret").read_bytes() == b"X"
        assert (arena.out / "file").read_bytes() == b"X"


@pytest.mark.asyncio
async def test_a_link_and_a_directory_of_one_name_do_not_meet(tmp_path):
    """The vault says that a name is a symbolic link, and its number has children all the same."""
    arena = Arena(tmp_path)
    builder, web = started()
    link = version_of(EntryType.SYMLINK, target=os.fsencode(arena.outside))
    raw(web, web.fids[b"/w"], b"a", link, 70)
    raw(web, 70, b"secret", FILE, 71)
    await builder.commit()
    await arena.restore(builder)
    assert os.listdir(arena.out) == ["a"]


@pytest.mark.asyncio
async def test_the_type_of_entry_and_version_must_agree(tmp_path):
    arena = Arena(tmp_path)
    builder, web = started()
    fid = web.fids[b"/w"]
    web.set(dirent_key(fid, b"x"), encode(Dirent(80, EntryType.SYMLINK)))
    web.set(version_key(80), encode(FILE))
    web.set(dirent_key(fid, b"gone"), encode(Dirent(81, EntryType.REGULAR)))
    raw(web, fid, b"odd", version_of(EntryType.REGULAR, type=42), 82)
    await builder.commit()
    report = await arena.restore(builder)
    assert len(report.refused) == 3
    assert os.listdir(arena.out) == []


@pytest.mark.asyncio
async def test_device_nodes_are_restored_only_when_asked_for(tmp_path):
    arena = Arena(tmp_path)
    builder, web = started()
    node = version_of(EntryType.BLOCK, rdev=os.makedev(7, 0), mode=0o666)
    web.entry(b"/w/disk", node)
    await builder.commit()
    report = await arena.restore(builder)
    assert "--devices" in report.refused[0].reason
    assert os.listdir(arena.out) == []


@pytest.mark.asyncio
async def test_a_directory_cycle_ends(tmp_path):
    arena = Arena(tmp_path)
    builder, web = started()
    web.directory(b"/w/a")
    web.set(dirent_key(web.fids[b"/w/a"], b"up"), encode(Dirent(web.fids[b"/w"], 2)))
    await builder.commit()
    report = await arena.restore(builder)
    assert "twice" in report.refused[0].reason


@pytest.mark.asyncio
async def test_names_that_fold_into_one_are_not_merged(tmp_path):
    """What the survey found free and is taken when it is written, is refused, not replaced."""
    from streamd.restore.target import rename_free

    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "b").write_bytes(b"2")
    handle = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(FileExistsError):
            rename_free(b"a", b"b", handle)
        rename_free(b"a", b"c", handle)
    finally:
        os.close(handle)
    assert (tmp_path / "b").read_bytes() == b"2"
    assert (tmp_path / "c").read_bytes() == b"1"


@pytest.mark.asyncio
async def test_a_tree_deeper_than_any_path_comes_back(tmp_path):
    arena = Arena(tmp_path)
    builder, web = started()
    fid = web.fids[b"/w"]
    for number in range(300):
        raw(web, fid, b"d" * 100, DIRECTORY, 1000 + number)
        fid = 1000 + number
    raw(web, fid, b"f", FILE, 5000)
    await builder.commit()
    report = await arena.restore(builder)
    assert not report.refused
    assert report.directory_count == 300


@pytest.mark.asyncio
async def test_a_racer_that_swaps_directories_for_links_gets_nothing(tmp_path):
    arena = Arena(tmp_path)
    builder, web = started()
    for number in range(40):
        web.directory(b"/w/d%d" % number)
        for each in range(10):
            web.file(b"/w/d%d/f%d" % (number, each), b"X" * 100)
    await builder.commit()
    stop = threading.Event()

    def race() -> None:
        pick = random.Random(1)
        while not stop.is_set():
            name = arena.out / f"d{pick.randrange(40)}"
            try:
                os.rename(name, f"{name}-moved")
                os.symlink(arena.outside, name)
            except OSError:
                continue

    arena.out.mkdir()
    racer = threading.Thread(target=race)
    racer.start()
    try:
        await arena.restore(builder)
    finally:
        stop.set()
        racer.join()
    assert arena.look() == arena.before
