"""Hooks come in pairs, whatever happens in between."""

import asyncio
from pathlib import Path
from types import SimpleNamespace

import pytest

from streamd.config.model import SourceConfig
from streamd.daemon.hooks import Hooks
from streamd.daemon.meters import Meters
from streamd.effects import SystemClock

pytestmark = pytest.mark.asyncio
SCRIPT = '#!/bin/sh\necho "$STREAMD_HOOK $STREAMD_RESULT" >> "{log}"\n'


def make(tmp_path: Path, before: str = "", **options) -> Hooks:
    for name, more in (("before", before), ("after", "")):
        path = tmp_path / name
        path.write_text(SCRIPT.format(log=tmp_path / "log") + more)
        path.chmod(0o755)
    config = SourceConfig(
        paths=("/srv",),
        before_capture=(str(tmp_path / "before"),),
        after_capture=(str(tmp_path / "after"),),
        **options,
    )
    return Hooks("web", config, SystemClock(), Meters())


def log(tmp_path: Path) -> list[str]:
    return (tmp_path / "log").read_text().splitlines()


async def test_a_good_pair_is_told_how_it_went(tmp_path) -> None:
    hooks = make(tmp_path)
    assert await hooks.before()
    await hooks.after(is_good=True)
    assert (log(tmp_path), hooks.failure) == (["before_capture ", "after_capture ok"], "")
    hooks.close()


async def test_a_failed_one_marks_or_refuses(tmp_path) -> None:
    hooks = make(tmp_path, before="echo no >&2; exit 1\n")
    assert await hooks.before()
    await hooks.after(is_good=True)
    assert hooks.failure == "before_capture: ended with status 1\nno"
    hooks = make(tmp_path, before="exit 1\n", hook_failure="refuse")
    assert not await hooks.before()
    assert not await hooks.before(), "the next one has its turn"
    assert log(tmp_path)[-2:] == ["before_capture ", "before_capture "]


async def test_captures_with_hooks_take_turns(tmp_path) -> None:
    hooks = make(tmp_path)

    async def capture() -> None:
        assert await hooks.before()
        await asyncio.sleep(0.05)
        await hooks.after(is_good=True)

    async with asyncio.TaskGroup() as group:
        group.create_task(capture(), name="one")
        group.create_task(capture(), name="two")
    assert log(tmp_path) == ["before_capture ", "after_capture ok"] * 2


async def test_what_comes_too_late_to_be_announced_waits_for_a_capture_of_its_own(tmp_path) -> None:
    hooks = make(tmp_path)
    dirty, captured = [], []

    class Notes:
        """Somebody changes a file just after it was read that nothing is dirty."""

        async def read(self, *_question: object, **_how: object) -> bool:
            try:
                return bool(dirty)
            finally:
                dirty.append("late")

        async def write(self, *_change: object) -> None:
            pass

    async def capture() -> int:
        captured.append((len(log(tmp_path)), *dirty))
        return 1

    source = SimpleNamespace(number=1, source=SimpleNamespace(roots=[b"/srv"]))
    assert await hooks.around(capture, Notes(), source, scan=False) == 0
    assert captured == []
    assert await hooks.around(capture, Notes(), source, scan=False) == 1
    assert captured == [(1, "late", "late")], "captured after its `before_capture`"
    hooks.close()


async def test_what_was_begun_is_ended_when_it_is_cancelled(tmp_path) -> None:
    hooks = make(tmp_path, before="exec sleep 60\n")
    async with asyncio.TaskGroup() as group:
        task = group.create_task(hooks.before(), name="before")
        while not (tmp_path / "log").exists():
            await asyncio.sleep(0.02)
        task.cancel()
    assert log(tmp_path) == ["before_capture ", "after_capture failed"]


async def test_one_that_takes_too_long_has_failed(tmp_path) -> None:
    hooks = make(tmp_path, before="exec sleep 60\n", hook_timeout_seconds=1)
    assert await hooks.before()
    assert "not done within 1 s" in hooks.failure
