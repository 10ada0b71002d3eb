"""A large file that is captured again is cut where it was, and stored as if nothing were known."""

import os
import random
from pathlib import Path

from plain_host import PlainHost

from streamd.format.chunker import Cutter
from streamd.pipeline import seal

MIB = 1 << 20


class Looked:
    """Counts the bytes in which cuts are looked for."""

    def __init__(self, monkeypatch) -> None:
        self.bytes = 0
        real, together = Cutter.cut, Cutter.chunks

        def cut(cutter, buffer, *, final):
            sizes = real(cutter, buffer, final=final)
            self.bytes += sum(sizes)
            return sizes

        def chunks(cutter, *arguments, **options):
            before = self.bytes
            found = together(cutter, *arguments, **options)
            self.bytes = before + sum(size for pieces in found for _, _, size in pieces)
            return found

        monkeypatch.setattr(Cutter, "cut", cut)
        monkeypatch.setattr(Cutter, "chunks", chunks)


def test_behind_an_insertion_a_large_file_is_cut_as_before(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(seal, "FILE_SIZE_MIN", 8 * MIB)
    rng, host = random.Random(7), PlainHost(tmp_path)
    tree, run = host.tree, host.run
    (tree / "large").write_bytes(data := rng.randbytes(12 * MIB))
    assert run("init", "--kit", str(tmp_path / "kit.txt")) == 0
    looked = Looked(monkeypatch)
    assert run("capture") == 0
    assert looked.bytes >= 11 * MIB
    for replaces in (False, True):  # in place, and as an editor does it
        at = 6 * MIB if replaces else 3 * MIB
        data = data[:at] + rng.randbytes(100_000) + data[at:]
        looked.bytes, before = 0, stored(host.vault)
        if replaces:
            (tree / "new").write_bytes(data)
            os.replace(tree / "new", tree / "large")
        else:
            (tree / "large").write_bytes(data)
        assert run("capture") == 0
        assert 100_000 < looked.bytes < 5 * MIB
        assert stored(host.vault) - before < 3 * MIB
    assert run("verify", "--level", "full") == 0
    assert run("restore", "web", "--to", str(tmp_path / "back")) == 0
    assert (tmp_path / "back" / "large").read_bytes() == data


def stored(vault: Path) -> int:
    return sum(path.stat().st_size for path in vault.rglob("*") if path.is_file())
