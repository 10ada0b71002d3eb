"""How large files were cut: a few of them are remembered."""

import pytest

from streamd.catalog import cuts
from streamd.catalog.cuts import Cuts
from streamd.catalog.db import Catalog


@pytest.fixture
def catalog(tmp_path):
    catalog = Catalog(str(tmp_path))
    yield catalog
    catalog.close()


def known(catalog: Catalog, key: bytes) -> bytes:
    with catalog.reader() as reader:
        return cuts.find(reader, key)


def test_what_is_remembered_last_is_found(catalog):
    assert known(catalog, b"a") == b""
    for value in (b"one", b"two"):
        catalog.write_now(cuts.remember, Cuts(b"a", value))
    catalog.write_now(cuts.remember, Cuts(b"b", b"three"))
    assert (known(catalog, b"a"), known(catalog, b"b")) == (b"two", b"three")


def test_the_oldest_are_forgotten_when_there_are_too_many(catalog, monkeypatch):
    monkeypatch.setattr(cuts, "KEPT_MAX", 2)
    for key in (b"a", b"b", b"a", b"c"):
        catalog.write_now(cuts.remember, Cuts(key, b"known"))
    assert [known(catalog, key) for key in (b"a", b"b", b"c")] == [b"known", b"", b"known"]


def test_the_oldest_are_forgotten_when_they_are_too_large(catalog, monkeypatch):
    monkeypatch.setattr(cuts, "KEPT_BYTES_MAX", 10)
    for key, value in ((b"a", b"123456"), (b"b", b"1234567"), (b"c", b"123")):
        catalog.write_now(cuts.remember, Cuts(key, value))
    assert [known(catalog, key) for key in (b"a", b"b", b"c")] == [b"", b"1234567", b"123"]
