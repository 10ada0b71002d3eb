"""explain and problems say why, with and without the daemon."""

import time
from pathlib import Path

import pytest
from system.daemon_process import Daemon
from system.test_file_classes import OPTIONS, build


def line_of(file: Path, text: str) -> str:
    number = next(n for n, line in enumerate(file.read_text().splitlines(), 1) if text in line)
    return f"{file}:{number}"


@pytest.mark.timeout(300)
def test_each_path_is_explained_by_the_line_that_decides_about_it(tmp_path) -> None:
    tree = tmp_path / "tree"
    build(tree)
    more = tmp_path / "more"
    more.mkdir()
    (more / "x").write_text("x")
    drop_in = tmp_path / "streamd" / "conf.d" / "more.toml"
    drop_in.parent.mkdir(parents=True)
    drop_in.write_text(
        f'[sources.more]\npaths = [\n  "{more}",\n]\nexclude = [\n  "*.o",\n  "*.bak",\n]\n'
    )
    (more / "x.bak").write_text("x")
    policy = {"hourly": 3, "daily": 2}
    with Daemon(tmp_path / "streamd", tree, source_options=OPTIONS, policy=policy) as daemon:
        daemon.init()

        def explain(path, codes=(0,)):
            return daemon.facts("explain", str(path), codes=codes)

        before = explain(tree / "plain/a", codes=(3,))
        assert (before["class"], before["decision"]) == ("pending", "included")
        assert before["destinations"] == []
        daemon.start()
        daemon.wait_protected()
        config = daemon.config
        for path, decision, place in (
            (tree / "plain/a", "included", line_of(config, "paths")),
            (tree / "plain/x.tmp", "excluded", line_of(config, "exclude = ")),
            (tree / "cache/one", "excluded", line_of(config, "exclude = ")),
            (tree / "tagged/lost", "excluded", line_of(config, "exclude_if_present")),
            (tree / "tagged/.nobackup", "included", line_of(config, "paths")),
            (tree / "big", "too-large", line_of(config, "max_file_size")),
            (more / "x", "included", line_of(drop_in, str(more))),
            (more / "x.bak", "excluded", line_of(drop_in, "*.bak")),
        ):
            said = explain(path, codes=(0, 3))
            assert (said["decision"], said["place"]) == (decision, place), path
            assert said["watcher"] in {"fanotify", "inotify", "polling"}
        assert '"cache/"' in explain(tree / "cache/one")["rule"]
        (tree / "plain/a").write_text("newer")
        daemon.wait_protected()
        said = explain(tree / "plain/a")
        assert said["class"] == "protected"
        assert said["last_event"]
        assert [one["is_there"] for one in said["destinations"]] == ["yes"]
        newest, older = said["holders"]
        assert (newest["replaced"], older["replaced"]) == ("", newest["captured"])
        assert newest["points"] >= 1
        assert newest["window"] and older["window"]
        text = daemon.command("explain", str(tree / "plain/a"))
        assert "kept by the continuous window and" in text
        assert explain(tmp_path / "elsewhere", codes=(9,))["error"]["code"] == "not-found"
        gone = explain(tree / "plain/never", codes=(3,))
        assert (gone["class"], gone["exists"]) == ("", False)
        found = daemon.facts("problems", "--all", codes=(3,))["problems"]
        assert {(one["source"], Path(one["path"]).name, one["class"]) for one in found} == {
            ("tree", "big", "too-large"),
            ("tree", "x.tmp", "excluded"),
            ("tree", "cache", "excluded"),
            ("tree", "lost", "excluded"),
            ("tree", "lost too", "excluded"),
            ("more", "x.bak", "excluded"),
        }
        daemon.stop()
        # the same without the daemon, which alone knows the watcher
        offline = explain(tree / "plain/a")
        assert offline["watcher"] == "" and offline["notes"]
        for fact in ("decision", "place", "class", "destinations", "holders"):
            assert offline[fact] == said[fact], fact
        problems = daemon.facts("problems", codes=(3,))["problems"]
        assert [one["reason"] for one in problems] == ["too-large"]
        assert "max_file_size" in problems[0]["remedy"]


@pytest.mark.timeout(300)
def test_why_a_path_waits_is_said(tmp_path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "f").write_text("x")
    with Daemon(tmp_path / "streamd", tree, rpo="600s") as daemon:
        daemon.init()
        daemon.start()
        daemon.wait_protected()
        (tree / "f").write_text("y")
        until = time.monotonic() + 100
        while (said := daemon.facts("explain", str(tree / "f"), codes=(0, 3)))[
            "class"
        ] != "pending":
            if said["holders"][0]["size"] and len(said["holders"]) == 2:
                break  # it was quicker than we
            assert time.monotonic() < until
        else:
            assert said["waiting_since"]
            assert "not captured yet" in said["why"]
        daemon.stop()
