"""What a thread has worked is its own, and costs no descriptor when the thread is gone."""

import os
import threading
import time

from streamd.effects import work_seconds


def spin(seconds: float) -> None:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def test_each_thread_is_told_of_itself() -> None:
    told: list[float] = []

    def work(seconds: float) -> None:
        before = work_seconds()[0]
        spin(seconds)
        told.append(work_seconds()[0] - before)

    for seconds in (0.02, 0.06):
        thread = threading.Thread(target=work, args=(seconds,))
        thread.start()
        thread.join()
    assert told[0] >= 0.02
    assert told[1] >= 0.06
    assert work_seconds()[1] >= 0


def test_waiting_for_a_processor_only_grows() -> None:
    seen = []
    for _ in range(5):
        seen.append(work_seconds()[1])
        spin(0.005)
    assert seen == sorted(seen)


def test_a_thread_that_has_ended_leaves_no_descriptor_behind() -> None:
    work_seconds()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        thread = threading.Thread(target=work_seconds)
        thread.start()
        thread.join()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_kernel_that_does_not_count_says_nothing_was_waited_for(monkeypatch) -> None:
    monkeypatch.setattr("streamd.effects._own", threading.local())
    real = os.open
    monkeypatch.setattr(os, "open", lambda _, flags: real(os.devnull, flags))
    assert work_seconds()[1] == 0


def test_where_there_is_no_such_account_nothing_was_waited_for(monkeypatch) -> None:
    def refuse(path: str, flags: int) -> int:
        raise FileNotFoundError(path, flags)

    monkeypatch.setattr("streamd.effects._own", threading.local())
    monkeypatch.setattr(os, "open", refuse)
    assert work_seconds()[1] == 0
