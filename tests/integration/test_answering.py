"""A mounted file system that hangs costs a few seconds once, and errors from then on."""

import errno
import os
import threading
import time

import pytest
from hung_mount import hung_mount

from streamd.effects import SystemClock
from streamd.sources.filesystem import answering as module
from streamd.sources.filesystem.answering import Answering
from streamd.sources.filesystem.listing import Examiner
from streamd.sources.filesystem.rules import ExcludeRules
from streamd.sources.filesystem.scope import TreeScope

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]


@pytest.fixture
def answering(monkeypatch) -> Answering:
    monkeypatch.setattr(module, "PROBE_SECONDS", 0.3)
    monkeypatch.setattr(module, "_TABLE_SECONDS", 0.0)
    return Answering(SystemClock())


def examiner(answering: Answering, root: bytes) -> Examiner:
    scope = TreeScope((root,), rules=ExcludeRules(()))
    return Examiner(scope, one_file_system=False, max_file_size=None, answering=answering)


def test_what_hangs_is_asked_once_and_refused_until_it_answers(tmp_path, answering) -> None:
    point = os.fsencode(tmp_path / "mount")
    with hung_mount(tmp_path / "mount"):
        for _ in range(50):
            with pytest.raises(OSError, match="does not answer") as refused, answering.turn(point):
                pass
            assert refused.value.errno == errno.ETIMEDOUT
        probes = [thread for thread in threading.enumerate() if thread.name == "probe"]
        assert len(probes) == 1, "one thread is lost for it, not one for each call"
        assert [mount.point for mount in answering.hung] == [point]
        assert answering.is_hung(point + b"/below")
    until = time.monotonic() + 60
    while answering.hung:  # the server is gone: that is an answer
        assert time.monotonic() < until
        time.sleep(0.05)
    with answering.turn(point):
        assert os.listdir(point) == []


def test_beside_it_everything_is_listed_and_nothing_is_concluded_of_it(tmp_path, answering) -> None:
    (tmp_path / "file").write_text("x")
    root = os.fsencode(tmp_path)
    with hung_mount(tmp_path / "mount"):
        for names in (None, [b"file", b"mount", b"absent"]):
            listing = examiner(answering, root).examine(root, names)
            assert listing.entries.keys() == {b"file"}
            assert listing.failed == {b"mount": errno.ETIMEDOUT}
        inside = examiner(answering, root).examine(root + b"/mount", None)
        assert inside.error == errno.ETIMEDOUT


def test_one_caller_at_a_time_is_let_in_and_the_others_wait_while_it_answers(
    tmp_path, answering, monkeypatch
) -> None:
    monkeypatch.setattr(module, "may_hang", lambda kind: True)  # as if all were remote
    inside, most = [0], [0]

    def work() -> None:
        path = os.fsencode(tmp_path)
        with answering.turn(path), answering.turn(path):  # whoever is in may come in again
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            time.sleep(0.4)  # longer than a probe may take
            inside[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
