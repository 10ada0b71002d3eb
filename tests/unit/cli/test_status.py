"""status, problems and reload say what the daemon says, and end as promised."""

import asyncio
import base64
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from streamd.catalog.dirty import Problem
from streamd.cli.main import main
from streamd.cli.status import screen
from streamd.daemon.control import ControlServer
from streamd.daemon.status import (
    DaemonStatus,
    DestinationStatus,
    IncidentStatus,
    ProblemsReport,
    ReloadReport,
    SourceStatus,
    WatchLine,
    incident_problem,
    overall_state,
    problem_line,
    verdict,
    waiting_problem,
    watch_lines,
    worst_first,
)
from streamd.errors import ConfigInvalid, ExitCode, NotFound
from streamd.sources.port import Watch

NOW_US = 1_790_000_000_000_000


def source(name: str, state: str = "protected", lag: float | None = 1.0, **fields) -> SourceStatus:
    return SourceStatus(
        name=name,
        state=state,
        paths=(f"/srv/{name}",),
        rpo_seconds=15,
        destinations=(
            DestinationStatus(destination="vault", protected_through_us=NOW_US, lag_seconds=lag),
        ),
        watch_modes={f"/srv/{name}": "fanotify"},
        **fields,
    )


def status(*sources: SourceStatus, **fields) -> DaemonStatus:
    return DaemonStatus(
        version="0.1.0",
        pid=7,
        started_us=NOW_US - 60_000_000,
        now_us=NOW_US,
        vault_url="file:///srv/vault",
        sources=sources,
        **{"is_remote": False, "state": overall_state(sources), **fields},
    )


# -- how bad it is -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sources", "state"),
    [
        ([source("a"), source("b")], "protected"),
        ([source("a"), source("b", "lagging", 99)], "lagging"),
        ([source("a", lag=99)], "lagging"),
        ([source("a", lag=None)], "lagging"),
        ([source("a", "lagging", 99), source("b", "failed")], "incomplete"),
        ([source("a", "scanning")], "incomplete"),
        ([source("a", "starting")], "incomplete"),
        ([source("a", "source-missing")], "incomplete"),
        ([source("a", problems=1)], "incomplete"),
        ([], "incomplete"),
    ],
)
def test_only_what_is_inside_its_rpo_without_a_problem_is_protected(sources, state) -> None:
    assert overall_state(sources) == state
    expected = ExitCode.OK if state == "protected" else ExitCode.INCOMPLETE
    assert verdict(status(*sources)) is expected


def test_a_source_that_nothing_holds_is_not_inside_its_rpo() -> None:
    bare = msgspec.structs.replace(source("a"), destinations=())
    assert bare.worst_lag_seconds is None
    assert not bare.is_inside_rpo


def test_a_daemon_that_says_incomplete_is_believed() -> None:
    assert verdict(status(source("a"), state="incomplete")) is ExitCode.INCOMPLETE


def test_the_worst_source_comes_first() -> None:
    sources = [
        source("fine"),
        source("slow", "lagging", 20),
        source("gone", "source-missing"),
        source("slower", "lagging", 200),
        source("broken", "failed"),
        source("unread", problems=3),
        source("new", "scanning", None),
    ]
    names = [each.name for each in worst_first(sources)]
    assert names == ["broken", "gone", "slower", "slow", "new", "unread", "fine"]


# -- the screen --------------------------------------------------------------------------------


def test_the_screen_begins_with_the_verdict_and_the_worst() -> None:
    shown = screen(status(source("a"), source("b", "failed", None, message="disk on fire")))
    lines = shown.splitlines()
    assert lines[0] == "INCOMPLETE: 1 of 2 sources needs a look"
    assert lines[3].split()[:4] == ["b", "failed", "vault", "nothing"]
    assert lines[4].split()[:4] == ["a", "protected", "vault", "1"]
    assert "b: disk on fire" in lines
    assert "daemon     streamd 0.1.0, process 7, up 1 min" in lines


def test_the_screen_says_when_all_is_well_or_nothing_is_configured() -> None:
    assert screen(status(source("a"))).startswith("protected: the only source\n")
    assert screen(status(source("a"), source("b"))).startswith("protected: all 2 sources\n")
    assert screen(status()).startswith("INCOMPLETE: no source")


def test_the_screen_tells_spool_reload_problems_and_watchers() -> None:
    many = source("a", problems=3, fuzzy=2)
    many = msgspec.structs.replace(many, watch_modes={"/1": "inotify", "/2": "x", "/3": "inotify"})
    shown = screen(
        status(
            many,
            is_remote=True,
            spool_objects=12,
            spool_bytes=3 << 20,
            upload_state="retrying",
            config_error="two problems",
            config_unheeded=("keep_deleted is not acted on",),
            retention_last_us=NOW_US - 5_000_000,
        )
    )
    assert "to upload  12 objects, 3.0 MiB (retrying)" in shown
    assert "old configuration runs on: two problems" in shown
    assert "WARNING: keep_deleted is not acted on" in shown
    assert "3 entries are not protected: streamd problems" in shown
    assert "2 files changed while they were read (fuzzy)" in shown
    assert "inotify 2, x 1" in shown
    assert "retention  5 s ago" in shown


# -- with a daemon -----------------------------------------------------------------------------


class Daemon:
    """Answers on the socket from a thread, as a daemon would."""

    def __init__(self, path: str) -> None:
        self.asked: list[tuple[str, dict]] = []
        self.answers: dict[str, object] = {}
        self._server = ControlServer(
            path, {name: self._handler(name) for name in ("status", "problems", "reload")}
        )
        self._server.listen()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run)
        self._task: asyncio.Task | None = None
        self._thread.start()

    def _handler(self, name: str):
        async def answer(args: dict):
            self.asked.append((name, args))
            result = self.answers[name]
            if isinstance(result, Exception):
                raise result
            return result

        return answer

    def _run(self) -> None:
        async def serve() -> None:
            self._task = asyncio.current_task()
            await self._server.run()

        try:
            self._loop.run_until_complete(serve())
        except asyncio.CancelledError:
            pass
        finally:
            self._loop.close()

    def stop(self) -> None:
        while self._task is None:
            pass
        self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join()


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "streamd.toml"
    file.write_text(
        f'timezone = "UTC"\n[daemon]\nsocket = "{tmp_path}/sock"\n[sources.web]\npaths = ["/srv/web"]\n'
    )
    monkeypatch.setenv("STREAMD_CONFIG", str(file))
    return file


@pytest.fixture
def daemon(config: Path) -> Iterator[Daemon]:
    running = Daemon(str(config.parent / "sock"))
    yield running
    running.stop()


@pytest.mark.parametrize("command", ["status", "problems", "reload"])
def test_without_a_daemon_the_exit_code_is_6(config, capsys, command: str) -> None:
    assert main([command]) == 6
    assert "daemon-unreachable" in capsys.readouterr().err


def test_status_ends_with_what_the_daemon_says(daemon: Daemon, capsys) -> None:
    daemon.answers["status"] = status(source("web"))
    assert main(["status"]) == 0
    assert "protected" in capsys.readouterr().out
    daemon.answers["status"] = status(source("web", "lagging", 60))
    assert main(["status", "--json"]) == 3
    said = json.loads(capsys.readouterr().out)
    assert said["sources"][0]["destinations"][0]["lag_seconds"] == 60


def test_a_lag_without_end_is_unknown_in_json(daemon: Daemon, capsys) -> None:
    daemon.answers["status"] = status(source("web", "scanning", float("inf")))
    assert main(["status", "--json"]) == 3
    said = json.loads(capsys.readouterr().out)
    assert said["sources"][0]["destinations"][0]["lag_seconds"] is None


def test_problems_are_listed_with_names_that_are_safe_to_print(daemon: Daemon, capsys) -> None:
    raw = b"/srv/web/caf\xe9\n"
    line = problem_line("web", Problem(raw, "unreadable", 13, NOW_US))
    daemon.answers["problems"] = ProblemsReport(problems=(line,), count=5)
    assert main(["problems", "web"]) == 3
    out = capsys.readouterr().out.splitlines()
    assert out[1].split() == [
        *("web", "unreadable", "EACCES", "2026-09-21", "14:13:20", "UTC", r"/srv/web/caf\xe9\x0a")
    ]
    assert out[2] == "and 4 more"
    assert daemon.asked == [("problems", {"source": "web", "limit": 1000})]
    assert main(["problems", "--json"]) == 3
    said = json.loads(capsys.readouterr().out)["problems"][0]
    assert base64.b64decode(said["path_b64"]) == raw


def test_no_problem_is_a_success_and_an_unknown_source_is_not(daemon: Daemon, capsys) -> None:
    daemon.answers["problems"] = ProblemsReport(problems=(), count=0)
    assert main(["problems"]) == 0
    assert main(["problems", "nosuch"]) == 9
    assert "there is: web" in capsys.readouterr().err


def test_reload_says_what_changed_and_what_needs_a_restart(daemon: Daemon, capsys) -> None:
    daemon.answers["reload"] = ReloadReport(
        config_generation=2, added_sources=("db",), needs_restart=("daemon.state",)
    )
    assert main(["reload", "--wait"]) == 0
    assert capsys.readouterr().out == "new source       db\nneeds a restart  daemon.state\n"
    assert daemon.asked == [("reload", {"wait": True})]
    daemon.answers["reload"] = ReloadReport(config_generation=3)
    assert main(["reload"]) == 0
    assert capsys.readouterr().out == "nothing changed\n"


def test_a_rejected_configuration_prints_every_problem(daemon: Daemon, capsys) -> None:
    daemon.answers["reload"] = ConfigInvalid("2 problems", problems=("x: bad", "y: worse"))
    assert main(["reload"]) == 4
    assert capsys.readouterr().err.splitlines()[:2] == ["x: bad", "y: worse"]
    assert main(["reload", "--json"]) == 4
    assert json.loads(capsys.readouterr().out)["error"]["problems"] == ["x: bad", "y: worse"]


def test_the_daemon_hears_of_a_configuration_that_is_invalid(
    daemon: Daemon, config: Path, capsys
) -> None:
    daemon.answers["reload"] = ConfigInvalid("1 problem", problems=("x: bad",))
    config.write_text(config.read_text() + "unknown = 1\n")
    assert main(["reload"]) == 4
    assert daemon.asked == [("reload", {"wait": False})]
    config.write_text("[[[")
    assert main(["reload"]) == 4
    assert len(daemon.asked) == 1


def test_any_refusal_of_the_daemon_ends_with_its_own_code(daemon: Daemon, capsys) -> None:
    daemon.answers["status"] = NotFound("nothing")
    assert main(["status"]) == 9
    assert "streamd: not-found: nothing; look with" in capsys.readouterr().err


def test_the_screen_says_why_something_is_not_watched_well() -> None:
    line = WatchLine(
        path="/srv/web/deep", mode="polling", why="inotify: sysctl -w fs.inotify.max_user_watches=2"
    )
    text = screen(status(source("web", watches=(line, WatchLine(path="/srv/web", mode="inotify")))))
    assert "web: /srv/web/deep is watched by polling (inotify: sysctl -w fs.inotify" in text
    assert "/srv/web is watched" not in text


def test_the_worst_watches_come_first_and_very_many_are_cut() -> None:
    watches = {b"/%d" % number: Watch("fanotify") for number in range(500)}
    watches[b"/499"] = Watch("polling", "no room")
    lines = watch_lines(watches)
    assert lines[0] == WatchLine(path="/499", mode="polling", why="no room")
    assert len(lines) == 200


def test_a_suspect_source_comes_first_is_incomplete_and_says_what_to_do() -> None:
    incident = IncidentStatus(reason="encrypted", files=1234, before_us=NOW_US - 60_000_000)
    sources = (source("calm", lag=9.0), source("hit", incident=incident))
    assert [one.name for one in worst_first(sources)] == ["hit", "calm"]
    assert overall_state(sources) == "incomplete"
    shown = screen(status(*sources))
    assert "hit: SUSPECT: 1,234 files encrypted since 1 min" in shown
    assert "streamd retention release hit" in shown


def test_a_suspect_source_is_a_problem() -> None:
    incident = IncidentStatus(reason="deleted", files=200, before_us=NOW_US)
    line = incident_problem(source("hit", incident=incident))
    assert line is not None
    assert (line.path, line.reason, line.detail) == ("/srv/hit", "suspect", "200 files deleted")
    assert "release" in line.remedy
    assert incident_problem(source("calm")) is None


def test_events_that_wait_are_a_problem_of_their_source() -> None:
    waits = msgspec.structs.replace(
        source("web", lag=40.0), events_wait_since_us=NOW_US, message="events of /srv/web wait"
    )
    line = waiting_problem(waits)
    assert line is not None
    assert (line.path, line.reason, line.in_class) == ("/srv/web", "events-wait", "pending")
    assert (line.detail, line.since_us) == ("events of /srv/web wait", NOW_US)
    assert line.remedy
    assert waiting_problem(source("calm")) is None
