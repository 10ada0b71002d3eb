"""ls, find, history, diff and cat tell what was, from the vault alone."""

import asyncio
import json
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from vaultbuilder import START_US, TICK_US, VaultBuilder

from streamd.cli.main import main
from streamd.daemon import compose, unlocking

WWW = b"/srv/www"
BAD = b"/srv/www/caf\xe9\n"
SECOND = 1_000_000


def at(commit: int) -> str:
    """The instant right after the commit with this number, from 1."""
    import datetime as dt

    us = START_US + commit * TICK_US - TICK_US // 2
    return (dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=us)).isoformat()


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Return a function that builds a vault with a recipe and makes the commands use it."""
    config = tmp_path / "streamd.toml"
    config.write_text('timezone = "UTC"\n[vault]\nurl = "file:///nowhere"\n')
    monkeypatch.setenv("STREAMD_CONFIG", str(config))

    def use(recipe) -> VaultBuilder:
        builder = VaultBuilder()
        asyncio.run(recipe(builder))

        @asynccontextmanager
        async def lend(_config, *, receiving=None):
            del receiving
            yield builder.vault

        monkeypatch.setattr(compose, "open_vault_for_reading", lend)
        monkeypatch.setattr(unlocking, "open_vault_for_reading", lend)
        return builder

    return use


async def site(builder: VaultBuilder) -> None:
    """Five commits, one second apart."""
    web = builder.source("web", WWW)
    web.directory(WWW)
    web.directory(WWW + b"/css")
    web.file(WWW + b"/index.html", b"<p>one", ctime_ns=(START_US - 2 * SECOND) * 1000)
    web.file(WWW + b"/css/a.css", b"a{}", mode=0o600, user=b"www", group=b"")
    web.symlink(WWW + b"/home", b"index.html")
    web.file(BAD, b"bytes")
    await builder.commit()
    web.file(WWW + b"/index.html", b"<p>two, longer", ctime_ns=(START_US + 900_000) * 1000, flags=1)
    web.gap(START_US, START_US + 5, "overflow")
    await builder.commit()
    rename(web, WWW + b"/css/a.css", WWW + b"/css/b.css")
    await builder.commit()
    rename(web, WWW + b"/css", WWW + b"/style")
    await builder.commit()
    web.delete(WWW + b"/index.html")
    web.file(WWW + b"/new.txt", b"new")
    await builder.commit()


def rename(source, old: bytes, new: bytes) -> None:
    """The way a rename is recorded: the new name first, then the old one goes."""
    fid = source.fids.pop(old)
    source.fids[new] = fid
    from streamd.model.record import dirent_key

    for path in [p for p in source.fids if p.startswith(old + b"/")]:
        source.fids[new + path[len(old) :]] = source.fids.pop(path)
    old_key, new_key = dirent_key(*source.split(old)), dirent_key(*source.split(new))
    source.set(new_key, source.rows[old_key])
    source.drop(old_key)


def run(capsys, *arguments: str, code: int = 0):
    assert main([*arguments, "--json"]) == code, capsys.readouterr()
    return json.loads(capsys.readouterr().out)


def text(capsys, *arguments: str, code: int = 0) -> str:
    assert main(list(arguments)) == code, capsys.readouterr()
    return capsys.readouterr().out


# -- ls ----------------------------------------------------------------------------------------


def test_ls_lists_the_only_path_as_it_is_and_as_it_was(build, capsys) -> None:
    build(site)
    assert text(capsys, "ls", "web").split() == ["caf\\xe9\\x0a", "home", "new.txt", "style/"]
    before = text(capsys, "ls", "web", "--at", at(1)).split()
    assert before == ["caf\\xe9\\x0a", "css/", "home", "index.html"]


def test_ls_takes_relative_and_absolute_paths(build, capsys) -> None:
    build(site)
    assert text(capsys, "ls", "web:style") == "b.css\n"
    assert text(capsys, "ls", "web:/srv/www/style/") == "b.css\n"
    assert text(capsys, "ls", "web:new.txt") == "/srv/www/new.txt\n"


def test_ls_descends_when_asked_to(build, capsys) -> None:
    build(site)
    lines = text(capsys, "ls", "web", "-R").splitlines()
    assert "style/b.css" in lines
    assert "style/" in lines


def test_ls_shows_details(build, capsys) -> None:
    build(site)
    shown = text(capsys, "ls", "web:style", "-l").splitlines()[1]
    assert shown.split() == [
        *("-rw-------", "1", "www", "0", "3"),
        *("2023-11-14", "22:13:20", "UTC", "b.css"),
    ]
    assert "home -> index.html" in text(capsys, "ls", "web", "-l")


def test_names_that_are_not_text_come_as_base64_in_json(build, capsys) -> None:
    import base64

    build(site)
    first, *others = run(capsys, "ls", "web")["entries"]
    assert base64.b64decode(first["path_b64"]) == BAD
    assert all("path_b64" not in other for other in others)
    style = others[-1]
    assert (style["path"], style["type"], style["mode"]) == ("/srv/www/style", "directory", "0755")


def test_what_is_not_there_is_named(build, capsys) -> None:
    build(site)
    assert main(["ls", "web:index.html"]) == 9
    assert "no /srv/www/index.html in web at 2025-10-09" in capsys.readouterr().err
    assert main(["ls", "nosuch"]) == 9
    assert "there is: web" in capsys.readouterr().err
    assert main(["ls", "web", "--at", "2001-01-01"]) == 9
    assert "the oldest is" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["ls", "web:../x"], ["ls", ":x"], ["ls", "web", "--at", "someday"]]
)
def test_nonsense_is_a_usage_error(build, capsys, arguments) -> None:
    build(site)
    assert main(arguments) == 2


def test_a_source_with_several_paths_is_listed_and_wants_absolute_paths(build, capsys) -> None:
    async def recipe(builder: VaultBuilder) -> None:
        etc = builder.source("etc", b"/etc", b"/opt/etc")
        etc.directory(b"/etc")
        etc.directory(b"/opt/etc")
        etc.file(b"/opt/etc/x", b"x")
        await builder.commit()

    build(recipe)
    assert text(capsys, "ls", "etc").split() == ["/etc/", "/opt/etc/"]
    assert text(capsys, "ls", "etc:/opt/etc") == "x\n"
    assert main(["ls", "etc:x"]) == 2
    assert "several paths: /etc, /opt/etc" in capsys.readouterr().err


def test_a_named_point_is_a_time(build, capsys) -> None:
    async def recipe(builder: VaultBuilder) -> None:
        web = builder.source("web", WWW)
        web.directory(WWW)
        web.mark("before-upgrade")
        await builder.commit()
        web.file(WWW + b"/later", b"")
        await builder.commit()

    build(recipe)
    assert text(capsys, "ls", "web", "--at", "before-upgrade") == ""
    assert text(capsys, "ls", "web") == "later\n"


# -- cat ---------------------------------------------------------------------------------------


def test_cat_writes_the_bytes_of_then(build, capsysbinary) -> None:
    build(site)
    assert main(["cat", "web:index.html", "--at", at(1)]) == 0
    assert capsysbinary.readouterr().out == b"<p>one"
    assert main(["cat", "web:index.html", "--at", at(3)]) == 0
    out, err = capsysbinary.readouterr()
    assert out == b"<p>two, longer"
    assert b"this version is fuzzy" in err


def test_cat_with_json_tells_the_facts(build, capsys) -> None:
    build(site)
    facts = run(capsys, "cat", "web:index.html", "--at", at(2))
    assert facts["entry"]["size"] == 14
    assert facts["entry"]["flags"] == ["fuzzy"]


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ("web:style", "is a directory"),
        ("web", "names no file"),
        ("web:home", "symbolic link to index.html"),
    ],
)
def test_cat_refuses_what_is_no_file(build, capsys, what: str, why: str) -> None:
    build(site)
    assert main(["cat", what]) == 2
    assert why in capsys.readouterr().err


# -- diff --------------------------------------------------------------------------------------


def changes(capsys, first: int, second: int, *more: str) -> list[str]:
    return text(capsys, "diff", "web", at(first), at(second), *more).splitlines()


def test_diff_tells_what_changed_between_two_instants(build, capsys) -> None:
    build(site)
    assert changes(capsys, 1, 2) == ["M /srv/www/index.html  (content, flags)"]
    assert changes(capsys, 2, 3) == ["R /srv/www/css/a.css -> /srv/www/css/b.css"]
    assert changes(capsys, 3, 4) == ["R /srv/www/css -> /srv/www/style"]
    assert changes(capsys, 4, 5) == ["- /srv/www/index.html", "+ /srv/www/new.txt"]
    assert changes(capsys, 5, 4) == ["+ /srv/www/index.html", "- /srv/www/new.txt"]
    assert changes(capsys, 4, 4) == []


def test_diff_can_look_at_a_part(build, capsys) -> None:
    build(site)
    assert changes(capsys, 1, 5, "style") == [
        "R /srv/www/css -> /srv/www/style",
        "R /srv/www/css/a.css -> /srv/www/style/b.css",
    ]
    assert main(["diff", "web", at(1), at(5), "nosuch"]) == 9


def test_diff_in_json_has_old_and_new_paths(build, capsys) -> None:
    build(site)
    assert run(capsys, "diff", "web", at(2), at(3))["changes"] == [
        {"kind": "R", "path": "/srv/www/css/b.css", "old_path": "/srv/www/css/a.css"}
    ]


def test_diff_tells_files_that_took_each_others_names(build, capsys) -> None:
    async def recipe(builder: VaultBuilder) -> None:
        web = builder.source("web", WWW)
        web.directory(WWW)
        a = web.file(WWW + b"/a", b"a")
        b = web.file(WWW + b"/b", b"b")
        c = web.file(WWW + b"/c", b"c")
        web.symlink(WWW + b"/t", b"t")
        web.file(WWW + b"/linked", b"l")
        await builder.commit()
        for name, fid in ((b"/a", b), (b"/b", a)):
            web.fids[WWW + name] = fid
            web.file(WWW + name, b"b" if fid == b else b"a")
        del web.fids[WWW + b"/c"]
        web.file(WWW + b"/c", b"another", mode=0o600)
        web.drop(b"f" + c.to_bytes(8, "big"))
        web.delete(WWW + b"/t")
        web.file(WWW + b"/t", b"t")
        web.link(WWW + b"/link", WWW + b"/linked")
        await builder.commit()

    build(recipe)
    assert changes(capsys, 1, 2) == [
        "R /srv/www/b -> /srv/www/a",
        "R /srv/www/a -> /srv/www/b",
        "M /srv/www/c  (content, mode)",
        "+ /srv/www/link",
        "T /srv/www/t",
    ]


# -- find --------------------------------------------------------------------------------------


def test_find_matches_the_last_part_or_the_whole_path(build, capsys) -> None:
    build(site)
    assert text(capsys, "find", "web", "*.css") == "/srv/www/style/b.css\n"
    assert text(capsys, "find", "web", "style/*") == "/srv/www/style/b.css\n"
    assert text(capsys, "find", "web", "/srv/*.txt") == "/srv/www/new.txt\n"
    assert text(capsys, "find", "web", "*.css", "--at", at(1)) == "/srv/www/css/a.css\n"
    assert text(capsys, "find", "web", "www") == "/srv/www\n"
    assert main(["find", "web", "*.jpg"]) == 9


def test_find_in_all_of_time_tells_from_when_until_when(build, capsys) -> None:
    build(site)
    found = run(capsys, "find", "web", "*.css", "--all-versions")["entries"]
    assert [
        (line["path"], line["first"][17:19], line.get("gone", "")[17:19]) for line in found
    ] == [
        ("/srv/www/css/a.css", "20", "22"),
        ("/srv/www/css/b.css", "22", "23"),
        ("/srv/www/style/b.css", "23", ""),
    ]
    assert "/srv/www/css/a.css" in text(capsys, "find", "web", "css/*", "--all-versions")
    assert main(["find", "web", "x", "--all-versions", "--at", "-2h"]) == 2


# -- history -----------------------------------------------------------------------------------


def events(capsys, what: str) -> list[tuple[str, ...]]:
    lines = run(capsys, "history", what)["history"]
    return [(line["event"], *line.get("what", ()), line.get("other", "")) for line in lines]


def test_history_tells_versions_gaps_and_the_end_of_a_file(build, capsys) -> None:
    build(site)
    assert events(capsys, "web:index.html") == [
        ("appeared", ""),
        ("gap", "overflow", ""),
        ("changed", "content", "flags", ""),
        ("deleted", ""),
    ]


def test_history_tells_how_long_a_capture_took(build, capsys) -> None:
    build(site)
    lines = run(capsys, "history", "web:index.html")["history"]
    delays = [line.get("delay_seconds") for line in lines]
    assert delays == [2.0, None, pytest.approx(0.1), None]
    shown = text(capsys, "history", "web:index.html")
    assert "fuzzy" in shown
    assert "changed: content, flags" in shown
    assert "gap until 2025-10-09 08:53:20 UTC: overflow" in shown


def test_history_follows_a_file_out_and_in(build, capsys) -> None:
    build(site)
    assert events(capsys, "web:css/a.css") == [
        ("appeared", ""),
        ("gap", "overflow", ""),
        ("moved-out", "/srv/www/css/b.css"),
    ]
    assert events(capsys, "web:css/b.css") == [
        ("gap", "overflow", ""),
        ("moved-in", "/srv/www/css/a.css"),
        ("moved-out", "/srv/www/style/b.css"),
    ]
    assert events(capsys, "web:style/b.css")[-1] == ("moved-in", "/srv/www/css/b.css")


def test_history_of_a_directory_does_not_count_what_happens_in_it(build, capsys) -> None:
    build(site)
    assert [event[0] for event in events(capsys, "web:/srv/www")] == ["appeared", "gap"]


def test_history_of_what_never_was_is_not_found(build, capsys) -> None:
    build(site)
    assert main(["history", "web:nosuch"]) == 9
    assert main(["history", "web"]) == 2


def test_history_tells_a_replaced_file_from_a_changed_one(build, capsys) -> None:
    async def recipe(builder: VaultBuilder) -> None:
        web = builder.source("web", WWW)
        web.directory(WWW)
        web.file(WWW + b"/a", b"1")
        await builder.commit()
        web.delete(WWW + b"/a")
        web.file(WWW + b"/a", b"22")
        await builder.commit()
        web.file(WWW + b"/tmp", b"333")
        await builder.commit()
        web.set(*moved(web, WWW + b"/tmp", WWW + b"/a"))  # rename over it, the old name stays
        await builder.commit()
        web.delete(WWW + b"/tmp")
        await builder.commit()

    def moved(web, old: bytes, new: bytes):
        from streamd.model.record import dirent_key

        web.fids[new] = web.fids[old]
        return dirent_key(*web.split(new)), web.rows[dirent_key(*web.split(old))]

    build(recipe)
    assert events(capsys, "web:a") == [
        ("appeared", ""),
        ("changed", "replaced", "content", ""),
        ("moved-in", "/srv/www/tmp"),
    ]
    assert events(capsys, "web:tmp") == [("appeared", ""), ("moved-out", "/srv/www/a")]


async def thinned(builder: VaultBuilder) -> None:
    """Three kept points; of the journal only what follows the last of them is left."""
    web = builder.source("web", WWW)
    web.directory(WWW)
    for round_ in range(3):
        web.file(WWW + b"/log", b"x" * (round_ + 1))
        if round_ == 1:
            web.file(WWW + b"/once", b"")
        if round_ == 2:
            web.delete(WWW + b"/once")
        segment = await builder.commit()
        await web.checkpoint()
        builder.tick()
        await builder.store.delete(segment)
    web.file(WWW + b"/log", b"now")
    await builder.commit()


def test_history_of_thinned_times_is_what_the_kept_points_say(build, capsys) -> None:
    build(thinned)
    assert events(capsys, "web:log") == [
        ("kept", ""),
        ("kept", "content", ""),
        ("kept", "content", ""),
        ("changed", "content", ""),
    ]
    assert events(capsys, "web:once") == [("kept", ""), ("absent", "")]


def test_find_in_all_of_time_sees_what_only_a_kept_point_has(build, capsys) -> None:
    build(thinned)
    (once,) = run(capsys, "find", "web", "once", "--all-versions")["entries"]
    assert once["gone"] > once["first"]
    (log,) = run(capsys, "find", "web", "log", "--all-versions")["entries"]
    assert "gone" not in log
