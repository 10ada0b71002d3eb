"""What every BlobStore must do. A new store subclasses BlobStoreContract and says how to make one.

A behaviour that is not in here does not exist: code above the port may rely on nothing else.
"""

import asyncio

import pytest

from streamd.errors import BlobConflict, BlobNotFound, VaultDamaged
from streamd.storage.port import BlobInfo, BlobName, BlobStore

A, B = BlobName("d/x/p/aa/aapack"), BlobName("d/x/p/bb/bbpack")
MEBIBYTE = 1 << 20
DECADE_US = 10 * 365 * 86_400 * 1_000_000


@pytest.mark.asyncio
class BlobStoreContract:
    @pytest.fixture
    def store(self) -> BlobStore:
        raise NotImplementedError

    async def test_what_is_put_can_be_got(self, store: BlobStore) -> None:
        await store.put(A, b"hello")
        assert await store.get(A) == b"hello"

    async def test_an_empty_object_is_an_object(self, store: BlobStore) -> None:
        await store.put(A, b"")
        assert await store.get(A) == b""
        assert [info.size_bytes for info in await scanned(store, "")] == [0]

    async def test_a_range_is_exact(self, store: BlobStore) -> None:
        await store.put(A, b"0123456789")
        assert await store.get(A, offset=2, size=3) == b"234"
        assert await store.get(A, offset=7) == b"789"
        assert await store.get(A, offset=0, size=1) == b"0"
        assert await store.get(A, offset=9, size=1) == b"9"
        assert await store.get(A, offset=4, size=0) == b""
        assert await store.get(A, offset=10) == b""

    async def test_a_range_beyond_the_end_is_damage_and_never_fewer_bytes(
        self, store: BlobStore
    ) -> None:
        await store.put(A, b"0123456789")
        for offset, size in ((8, 3), (11, None), (11, 1), (0, 11)):
            with pytest.raises(VaultDamaged):
                await store.get(A, offset=offset, size=size)

    async def test_every_kind_of_buffer_can_be_put_and_reused_afterwards(
        self, store: BlobStore
    ) -> None:
        reused = bytearray(b"12345678")
        await store.put(A, memoryview(reused)[2:6])
        await store.put(B, reused)
        reused[:] = b"garbage!"
        assert await store.get(A) == b"3456"
        assert await store.get(B) == b"12345678"

    async def test_megabytes_come_back_unchanged(self, store: BlobStore) -> None:
        content = bytes(range(256)) * (3 * MEBIBYTE // 256) + b"tail"
        await store.put(A, content)
        assert await store.get(A) == content
        assert (
            await store.get(A, offset=MEBIBYTE - 1, size=MEBIBYTE)
            == content[MEBIBYTE - 1 :][:MEBIBYTE]
        )

    async def test_putting_the_same_bytes_again_succeeds(self, store: BlobStore) -> None:
        await store.put(A, b"same")
        await store.put(A, memoryview(b"same"))
        assert await store.get(A) == b"same"

    @pytest.mark.parametrize("other", [b"second", b"firsT", b"", b"firstly"])
    async def test_an_object_is_never_rewritten(self, store: BlobStore, other: bytes) -> None:
        await store.put(A, b"first")
        with pytest.raises(BlobConflict):
            await store.put(A, other)
        assert await store.get(A) == b"first"

    async def test_of_several_writers_of_one_name_exactly_one_wins(self, store: BlobStore) -> None:
        async def put(content: bytes) -> bytes | None:
            try:
                await store.put(A, content)
            except BlobConflict:
                return None
            return content

        async with asyncio.TaskGroup() as writers:
            puts = [writers.create_task(put(b"writer %d" % n)) for n in range(8)]
        winners = [content for content in (each.result() for each in puts) if content is not None]
        assert [await store.get(A)] == winners

    async def test_writers_of_the_same_bytes_all_succeed(self, store: BlobStore) -> None:
        async with asyncio.TaskGroup() as writers:
            for _ in range(8):
                writers.create_task(store.put(A, b"agreed"))
        assert await store.get(A) == b"agreed"

    async def test_an_absent_object_is_not_found(self, store: BlobStore) -> None:
        with pytest.raises(BlobNotFound):
            await store.get(A)
        await store.put(A, b"1")
        with pytest.raises(BlobNotFound):
            await store.get(B, offset=3, size=1)
        with pytest.raises(BlobNotFound):
            await store.get(BlobName("d/x/p/aa"))

    async def test_scan_is_ordered_by_the_whole_name_and_filtered(self, store: BlobStore) -> None:
        names = ["g/1.fin", "g/1", "a-b/c", "a/b", "ab", "a.b", "a/b-c", "g/10", "Z/1", "a_b/x"]
        for name in names:
            await store.put(BlobName(name), b"12")
        for prefix in (
            "",
            "a",
            "a/",
            "a/b",
            "a-",
            "g/1",
            "g/1.",
            "g/2",
            "z",
            "none/of/these",
            "Z/",
        ):
            found = await scanned(store, prefix)
            assert [info.name for info in found] == sorted(n for n in names if n.startswith(prefix))

    async def test_scan_tells_size_and_time(self, store: BlobStore) -> None:
        await store.put(A, b"1")
        await store.put(B, b"22")
        first, second = await scanned(store, "d/x/p/")
        assert (first.name, first.size_bytes) == (A, 1)
        assert (second.name, second.size_bytes) == (B, 2)
        assert abs(first.modified_us - second.modified_us) < DECADE_US

    async def test_a_scan_may_be_left_early(self, store: BlobStore) -> None:
        await store.put(A, b"1")
        await store.put(B, b"2")
        async for info in store.scan(""):
            assert info.name == A
            break

    async def test_what_a_scan_yields_may_be_deleted_while_it_runs(self, store: BlobStore) -> None:
        names = [BlobName(f"p/{n % 3}/{n:04}") for n in range(30)]
        for name in names:
            await store.put(name, b"x")
        async for info in store.scan("p/"):
            await store.delete(info.name)
        assert await scanned(store, "") == []

    async def test_delete_is_idempotent_and_frees_the_name(self, store: BlobStore) -> None:
        await store.put(A, b"old")
        await store.delete(A)
        await store.delete(A)
        assert await scanned(store, "") == []
        with pytest.raises(BlobNotFound):
            await store.get(A)
        await store.put(A, b"new")
        assert await store.get(A) == b"new"

    async def test_deletes_beside_puts_in_one_place_lose_nothing(self, store: BlobStore) -> None:
        async def come_and_go(number: int) -> None:
            for _ in range(5):
                name = BlobName(f"p/zz/{number}")
                await store.put(name, b"here")
                assert await store.get(name) == b"here"
                await store.delete(name)

        async with asyncio.TaskGroup() as tasks:
            for number in range(4):
                tasks.create_task(come_and_go(number))
        assert await scanned(store, "") == []

    @pytest.mark.parametrize(
        "name",
        [
            "",
            "/etc/passwd",
            "../up",
            "a/../b",
            "a//b",
            "a/",
            ".hidden",
            "a/.b",
            "tmp/x",
            "a\0b",
            "a b",
            "ä",
            "a\n",
            "x" * 1000,
        ],
    )
    async def test_a_hostile_name_touches_nothing(self, store: BlobStore, name: str) -> None:
        with pytest.raises(VaultDamaged):
            await store.put(BlobName(name), b"x")
        with pytest.raises(VaultDamaged):
            await store.get(BlobName(name))
        with pytest.raises(VaultDamaged):
            await store.delete(BlobName(name))

    async def test_a_hostile_prefix_lists_nothing(self, store: BlobStore) -> None:
        for prefix in ("../", "/", "a//"):
            with pytest.raises(VaultDamaged):
                await scanned(store, prefix)


async def scanned(store: BlobStore, prefix: str) -> list[BlobInfo]:
    return [info async for info in store.scan(prefix)]
