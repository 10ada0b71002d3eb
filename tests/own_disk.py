"""A file system of its own for each of the processes that run tests side by side.

Of what happens on a file system every daemon that watches it is told: a test that changes 10⁵ files
would hold up the daemons of all the others, who share nothing but the disk. Besides, nothing here
outlives its run, so that this disk need not wait for the platter (`barrier=0`): a commit of the
catalog, which is flushed, costs a tenth. What tests see is ext4 all the same.

Needs root and a free loop device; without them the temporary directory stays where it was, and
pytest says so.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SIZE_BYTES = 60 << 30  # of a file with holes: takes what is written
PATHS = os.environ["PATH"] + ":/usr/sbin:/sbin"
SECONDS = 60


class OwnDisk:
    """The disk of one worker of xdist: below it is its temporary directory."""

    def __init__(self, config: pytest.Config, worker: str) -> None:
        base = Path(config.option.basetemp).parent
        self._image, self._point = base / f"{worker}.ext4", base / worker
        with self._image.open("wb") as file:
            file.truncate(SIZE_BYTES)
        self._point.mkdir()
        try:
            _run("mkfs.ext4", "-q", "-F", "-m", "0", str(self._image))
            _run("mount", "-o", "loop,discard,barrier=0", str(self._image), str(self._point))
        except subprocess.SubprocessError as error:
            self._image.unlink()
            config.issue_config_time_warning(
                pytest.PytestConfigWarning(f"no disk of its own: {error}"), 2
            )
            return
        config.option.basetemp = str(self._point / "t")
        config.pluginmanager.register(self, "own-disk")

    # after all fixtures have ended what they started on it
    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        take_away(self._point)
        if session.exitstatus == pytest.ExitCode.OK or os.environ.get("CI"):
            self._image.unlink()


def give(config: pytest.Config) -> None:
    """Move the temporary directory of a worker to a disk of its own, where that is possible."""
    worker = getattr(config, "workerinput", {}).get("workerid")
    can = os.geteuid() == 0 and shutil.which("mkfs.ext4", path=PATHS)
    if worker and can and config.option.basetemp:
        OwnDisk(config, worker)


def take_away(point: Path) -> None:
    """Unmount it, though a process may still stand there."""
    if point.is_mount():
        subprocess.run(["umount", "-l", str(point)], check=False, timeout=SECONDS)


def _run(*line: str) -> None:
    subprocess.run(line, check=True, timeout=SECONDS, env={**os.environ, "PATH": PATHS})
