"""Exit codes by kind of damaged object: `verify` says 7 for all that matters, `restore` what it could do.

One file of the vault is spoiled or gone; everything else is as it was. A restore that brings all back
ends with 0, one that lacks something that is damaged with 7, and 3 is left for what a target refuses.
"""

import json
import random
import re
import shutil
from pathlib import Path

import pytest
from plain_host import PlainHost

ALL = ["large", "later", "small", "tiny"]
FLIPPED, GONE = "flipped", "gone"
# what → (pattern of the object's name, code of verify, code of restore, files restored)
KINDS: dict[tuple[str, str], tuple[str, int, int, list[str] | None]] = {
    (FLIPPED, "pack"): (r"d/.+/p/.+", 7, 7, None),
    (GONE, "pack"): (r"d/.+/p/.+", 7, 7, None),
    (FLIPPED, "first segment"): (r"d/.+/j/.+/00000001/0+", 7, 7, []),
    (GONE, "first segment"): (r"d/.+/j/.+/00000001/0+", 7, 7, []),
    (FLIPPED, "segment in between"): (r"d/.+/j/.+/00000002/0+", 7, 7, ["large", "small"]),
    (GONE, "segment in between"): (r"d/.+/j/.+/00000002/0+", 7, 7, ["large", "small"]),
    (FLIPPED, "last segment"): (r"d/.+/j/.+/00000002/0+1", 7, 7, ALL),
    (GONE, "last segment"): (r"d/.+/j/.+/00000002/0+1", 7, 0, ALL),
    (FLIPPED, "epoch"): (r"d/.+/e/.+/00000002", 7, 0, ALL),
    (GONE, "epoch"): (r"d/.+/e/.+/00000002", 7, 0, ALL),
    (FLIPPED, "key ring"): (r"k/ring-.+", 7, 0, ALL),
    (GONE, "key ring"): (r"k/ring-.+", 7, 0, ALL),
    (GONE, "key slot"): (r"k/slot-.+", 7, 0, ALL),
    (FLIPPED, "specification"): (r"v/format-.+", 7, 0, ALL),
    (GONE, "specification"): (r"v/format-.+", 0, 0, ALL),  # noted; the daemon puts it again
    (FLIPPED, "rescue script"): (r"v/rescue-.+", 7, 0, ALL),
    (FLIPPED, "certificate"): (r"w/.+", 7, 7, []),
    (GONE, "certificate"): (r"w/.+", 7, 7, []),
    (FLIPPED, "configuration"): (r"v/config-.+", 7, 7, []),
    (GONE, "configuration"): (r"v/config-.+", 9, 9, []),  # then there is no vault
    (FLIPPED, "readme"): (r"README.txt", 0, 0, ALL),
}


class Site(PlainHost):
    """A vault of two captures, and its host."""

    def fill(self) -> None:
        rng = random.Random(1)
        assert self.run("init", "--kit", str(self.root / "kit.txt")) == 0
        for names in (("small", "large"), ("tiny", "later")):
            for name, size in zip(names, (5, 200_000), strict=True):
                (self.tree / name).write_bytes(rng.randbytes(size))
            assert self.run("capture") == 0
        assert self.run("verify", "--level", "full") == 0

    def named(self, pattern: str) -> Path:
        """Return the first object with such a name."""
        names = (path for path in sorted(self.vault.rglob("*")) if path.is_file())
        return next(
            path for path in names if re.fullmatch(pattern, str(path.relative_to(self.vault)))
        )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Site:
    site = Site(tmp_path_factory.mktemp("damage") / "site")
    site.fill()
    return site


def spoil(path: Path, how: str) -> None:
    if how == GONE:
        path.unlink()
        return
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.chmod(0o600)
    path.write_bytes(data)


@pytest.mark.parametrize("case", KINDS, ids=" ".join)
def test_each_kind_of_damage_has_its_exit_codes(
    made: Site, case: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    how, _ = case
    pattern, verify_code, restore_code, names = KINDS[case]
    path, out = made.named(pattern), made.root / "out"
    whole = path.read_bytes()
    spoil(path, how)
    try:
        assert made.run("verify", "--level", "full", "--json") == verify_code
        told = json.loads(capsys.readouterr().out)
        name = str(path.relative_to(made.vault))
        if case == (GONE, "pack"):  # told by what it held
            assert told["missing_chunks"] > 0
        elif verify_code == 7 and "damage" in told and "key slot" not in case:
            assert name in {one["name"] for one in told["damage"]}
        assert made.run("restore", "web", "--to", str(out)) == restore_code
        found = sorted(one.name for one in out.rglob("*") if one.is_file())
        if names is None:
            assert len(found) == 2, "what is in the other pack"
        else:
            assert found == names
    finally:
        path.write_bytes(whole)
        shutil.rmtree(out, ignore_errors=True)
