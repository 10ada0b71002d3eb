"""Tables of the configuration: what is wrong is named with its place, what is right is held."""

import pytest

from streamd.config.model import Config, PolicyConfig, SourceConfig
from streamd.config.table import Reading


def problems(data: dict[str, object]) -> list[tuple[object, str]]:
    reading = Reading(is_file=True)
    Config.read(data, (), reading)
    return [(problem.key, problem.message) for problem in reading.problems]


@pytest.mark.parametrize(
    ("data", "key", "message"),
    [
        ({"timezone": 3}, ("timezone",), "must be a text in quotes"),
        (
            {"vault": {"create_container": 1}},
            ("vault", "create_container"),
            "must be true or false",
        ),
        ({"verify": {"frames": True}}, ("verify", "frames"), "must be a whole number"),
        ({"verify": {"frames": -1}}, ("verify", "frames"), "must be at least 0"),
        ({"sources": {"a": {"paths": "/x"}}}, ("sources", "a", "paths"), "must be a list"),
        ({"sources": [1]}, ("sources",), "is a table: write [sources]"),
        ({"bandwidth": {"upload": "1MiB/s"}}, ("bandwidth",), "must be a list in brackets"),
        ({"bandwidth": [{}]}, ("bandwidth", 0, "upload"), "is required"),
        ({"local": {"keep": 5}}, ("local", "keep"), "write a text with a unit"),
    ],
)
def test_a_value_of_another_kind_is_named(
    data: dict[str, object], key: tuple[object, ...], message: str
) -> None:
    ((found, text),) = problems(data)
    assert found == key
    assert text.startswith(message)


def test_what_is_right_stands_although_something_beside_it_is_wrong() -> None:
    reading = Reading(is_file=True)
    tables = {"sources": {"a": {"paths": ["/x", "y"], "policy": 3}, "B": {}}, "verify": {"heal": 0}}
    config = Config.read(tables, (), reading)
    assert config.sources == {"a": SourceConfig(paths=("/x",))}
    assert config.verify.heal
    assert len(reading.problems) == 4


def test_a_window_without_a_limit_does_not_count() -> None:
    reading = Reading(is_file=True)
    config = Config.read({"bandwidth": [{}, {"upload": "1MiB/s"}]}, (), reading)
    assert [window.upload_bytes_per_second for window in config.bandwidth] == [1 << 20]


def test_code_may_hand_in_numbers_and_is_checked_too() -> None:
    assert SourceConfig(paths=("/a",), rpo_seconds=15).rpo_seconds == 15
    with pytest.raises(ValueError, match="rpo: must be at least 1s"):
        SourceConfig(rpo_seconds=0)
    with pytest.raises(ValueError, match="unknown key"):
        SourceConfig(rpo=3, pathes=())


def test_equal_tables_are_equal_and_hash_alike() -> None:
    one, other = PolicyConfig(daily=1), PolicyConfig(daily=1, hourly=0)
    assert one == other
    assert hash(one) == hash(other)
    assert one != PolicyConfig(daily=2)
    assert one != SourceConfig()
    assert one.but(daily=2) == PolicyConfig(daily=2)
    assert one.given == {"daily"}
    assert one.but(hourly=1).given == {"daily", "hourly"}
    assert "daily=1" in repr(one)


def test_a_command_may_be_as_old_as_the_time_between_its_runs() -> None:
    reading = Reading(is_file=True)
    read = {"a": {"kind": "command", "command": ["date"], "every": "2h"}}
    assert Config.read({"sources": read}, (), reading).sources["a"].rpo_seconds == 7200
    assert SourceConfig(kind="command", every_seconds=60).rpo_seconds == 60
    assert SourceConfig(kind="command", rpo_seconds=9).rpo_seconds == 9
