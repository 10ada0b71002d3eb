"""What systemd receives, and what is made of what it hands over."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamd.daemon.notify import Notifier, listen_fds, watchdog_interval_seconds


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(5)
        yield sock


@pytest.fixture
def notifier(manager: socket.socket) -> Notifier:
    return Notifier({"NOTIFY_SOCKET": manager.getsockname()})


def test_without_systemd_nothing_is_sent() -> None:
    notifier = Notifier({})
    assert not notifier.enabled
    assert not notifier.ready("watching")


def test_readiness_comes_with_a_status(notifier: Notifier, manager: socket.socket) -> None:
    assert notifier.enabled
    assert notifier.ready("watching 3 sources")
    assert manager.recv(1000) == b"READY=1\nSTATUS=watching 3 sources"


def test_a_status_cannot_smuggle_an_assignment(notifier, manager) -> None:
    notifier.status("bad name a\nMAINPID=1")
    assert manager.recv(1000) == b"STATUS=bad name a MAINPID=1"


def test_reload_stop_and_signs_of_life_have_their_own_messages(notifier, manager) -> None:
    notifier.reloading(12.5)
    notifier.stopping("draining")
    notifier.ping()
    notifier.extend_timeout(20)
    assert [manager.recv(1000) for _ in range(4)] == [
        b"RELOADING=1\nMONOTONIC_USEC=12500000",
        b"STOPPING=1\nSTATUS=draining",
        b"WATCHDOG=1",
        b"EXTEND_TIMEOUT_USEC=20000000",
    ]


def test_a_stored_descriptor_travels_with_its_name(notifier, manager, tmp_path) -> None:
    with (tmp_path / "kept").open("wb") as kept:
        assert notifier.store_fd("fanotify-1", kept.fileno())
        message, fds, _, _ = socket.recv_fds(manager, 1000, 4)
        assert message == b"FDSTORE=1\nFDNAME=fanotify-1\nFDPOLL=0"
        assert [os.fstat(fd).st_ino for fd in fds] == [os.fstat(kept.fileno()).st_ino]
        for fd in fds:
            os.close(fd)
    notifier.forget_fd("fanotify-1")
    assert manager.recv(1000) == b"FDSTOREREMOVE=1\nFDNAME=fanotify-1"


def test_an_abstract_address_begins_with_an_at_sign() -> None:
    name = f"streamd-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind("\0" + name)
        sock.settimeout(5)
        assert Notifier({"NOTIFY_SOCKET": "@" + name}).ping()
        assert sock.recv(100) == b"WATCHDOG=1"


def test_a_manager_that_went_away_is_no_error(tmp_path: Path) -> None:
    assert not Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).ping()


def handed_over(**environ: str) -> dict[str, str]:
    return {"LISTEN_PID": "7", **environ, "HOME": "/root"}


def test_descriptors_are_found_by_name_and_only_once(monkeypatch: pytest.MonkeyPatch) -> None:
    private: list[int] = []
    monkeypatch.setattr(os, "set_inheritable", lambda fd, _: private.append(fd))
    environ = handed_over(LISTEN_FDS="3", LISTEN_FDNAMES="a:b:a")
    assert listen_fds(environ, pid=7) == {"a": [3, 5], "b": [4]}
    assert private == [3, 4, 5]
    assert environ == {"HOME": "/root"}
    assert listen_fds(environ, pid=7) == {}


def test_descriptors_without_names_are_called_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "set_inheritable", lambda *_: None)
    assert listen_fds(handed_over(LISTEN_FDS="2"), pid=7) == {"unknown": [3, 4]}


@pytest.mark.parametrize(
    "environ", [{}, handed_over(LISTEN_FDS="many"), handed_over(LISTEN_PID="8", LISTEN_FDS="1")]
)
def test_descriptors_meant_for_others_are_left_alone(environ: dict[str, str]) -> None:
    assert listen_fds(environ, pid=7) == {}


@pytest.mark.parametrize(
    ("environ", "interval"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "60000000"}, 20),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "7"}, 20),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "8"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_is_fed_three_times_a_period(environ, interval) -> None:
    assert watchdog_interval_seconds(environ, pid=7) == interval
