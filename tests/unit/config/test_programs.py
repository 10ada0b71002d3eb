"""A program that others could replace is not run."""

import os
from pathlib import Path

import pytest

from streamd.config.host import check_host
from streamd.config.load import load
from streamd.config.programs import ProgramUnusable, find_program
from streamd.errors import ConfigInvalid


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "bin" / "dump"
    path.parent.mkdir()
    path.write_text("#!/bin/sh\necho content\n")
    path.chmod(0o755)
    return path


def test_a_program_of_ours_is_found_by_path_and_by_name(program):
    assert find_program(str(program)) == str(program)
    assert os.path.basename(find_program("true")) == "true"


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o757])
def test_a_program_that_others_may_write_is_refused(program, mode):
    program.chmod(mode)
    with pytest.raises(ProgramUnusable, match="writable by others"):
        find_program(str(program))


@pytest.mark.parametrize("mode", [0o777, 0o775])
def test_a_directory_that_others_may_write_is_refused(program, mode):
    program.parent.chmod(mode)
    with pytest.raises(ProgramUnusable, match=r"bin.*writable by others"):
        find_program(str(program))


def test_a_directory_in_which_nobody_may_replace_what_is_not_his_is_no_danger(program):
    program.parent.chmod(0o1777)
    assert find_program(str(program))


def test_the_place_that_a_link_leads_to_counts_and_so_does_the_links_own(program, tmp_path):
    link = tmp_path / "links" / "dump"
    link.parent.mkdir()
    link.symlink_to(program)
    assert find_program(str(link)) == str(link)
    program.parent.chmod(0o777)
    with pytest.raises(ProgramUnusable):
        find_program(str(link))
    program.parent.chmod(0o755)
    link.parent.chmod(0o777)
    with pytest.raises(ProgramUnusable):
        find_program(str(link))


@pytest.mark.root
def test_a_program_of_somebody_else_is_refused(program):
    os.chown(program, 12345, -1)
    with pytest.raises(ProgramUnusable, match="user 12345"):
        find_program(str(program))


def test_what_is_missing_or_no_program_is_said(program):
    with pytest.raises(ProgramUnusable, match="there is no program"):
        find_program("/nowhere/dump")
    with pytest.raises(ProgramUnusable, match="there is no program"):
        find_program("no-such-program-anywhere")
    program.chmod(0o644)
    with pytest.raises(ProgramUnusable, match="executed"):
        find_program(str(program))


def test_all_mistakes_are_reported_at_once_with_their_lines(tmp_path, program):
    program.chmod(0o777)
    (tmp_path / "tree").mkdir()
    file = tmp_path / "streamd.toml"
    file.write_text(
        f'[vault]\nurl = "file://{tmp_path}/vault"\n'
        f'[daemon]\nstate = "{tmp_path}/state"\n'
        f'[sources.db]\nkind = "command"\ncommand = ["{program}"]\n'
        f'[sources.web]\npaths = ["{tmp_path}/tree"]\nbefore_capture = ["/nowhere"]\n'
    )
    with pytest.raises(ConfigInvalid) as caught:
        check_host(load(str(file)))
    assert [line.split(": ")[1] for line in caught.value.problems] == [
        "sources.db.command",
        "sources.web.before_capture",
    ]


def problems(tmp_path: Path, text: str) -> list[str]:
    file = tmp_path / "streamd.toml"
    file.write_text(text)
    with pytest.raises(ConfigInvalid) as caught:
        load(str(file))
    return [line.split(": ", 1)[1] for line in caught.value.problems]


def test_each_kind_has_its_own_keys(tmp_path):
    assert problems(
        tmp_path,
        '[sources.a]\nkind = "command"\npaths = ["/x"]\nexclude = ["y"]\n'
        '[sources.b]\npaths = ["/z"]\ncommand = ["true"]\nevery = "2h"\n'
        '[sources.c]\nkind = "command"\ncommand = ["../dump"]\nevery = "5s"\nmin_size = "x"\n',
    ) == [
        "sources.a.command: is required",
        'sources.a.paths: has no meaning for a source of kind "command"',
        'sources.a.exclude: has no meaning for a source of kind "command"',
        'sources.b.command: has no meaning for a source of kind "filesystem"',
        'sources.b.every: has no meaning for a source of kind "filesystem"',
        'sources.c.command: "../dump" is neither an absolute path nor the name of a program',
        "sources.c.every: must be at least 1m",
        'sources.c.min_size: "x" is not a size: write for example 64MiB, 200GiB or 500MB',
    ]


def test_a_command_may_be_as_old_as_its_pace(tmp_path):
    file = tmp_path / "streamd.toml"
    file.write_text('[sources.a]\nkind = "command"\ncommand = ["true"]\nevery = "2h"\n')
    source = load(str(file)).sources["a"]
    assert (source.rpo_seconds, source.path_bytes) == (7200, (b"/output",))
