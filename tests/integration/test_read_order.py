"""What is read together and what is read by itself: each file gets its own content back."""

import os
import random
from pathlib import Path

from plain_host import PlainHost


def test_a_file_that_is_read_by_itself_between_others_does_not_change_places(
    tmp_path: Path,
) -> None:
    """One with an attribute is read after the others of its directory, and before the next one."""
    rng, host = random.Random(6), PlainHost(tmp_path)
    tree, run = host.tree, host.run
    contents: dict[Path, bytes] = {}
    for number in range(12):
        folder = tree / f"folder{number:02}"
        folder.mkdir(parents=True)
        for name in "abcdef":
            contents[folder / name] = rng.randbytes(rng.randrange(1, 9000))
            (folder / name).write_bytes(contents[folder / name])
            if rng.random() < 0.3:
                os.setxattr(folder / name, b"user.note", b"read by itself")
    assert run("init", "--kit", str(tmp_path / "kit.txt")) == 0
    assert run("capture") == 0
    assert run("verify", "--level", "full") == 0
    assert run("restore", "web", "--to", str(tmp_path / "back")) == 0
    for path, content in contents.items():
        assert (tmp_path / "back" / path.relative_to(tree)).read_bytes() == content
