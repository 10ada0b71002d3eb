"""Exclude rules, and what tells where they come from."""

import pytest

from streamd.errors import ConfigInvalid
from streamd.sources.filesystem.rules import ExcludeRules

RULES = ExcludeRules(["# a comment", "", "*.tmp", "!keep.tmp", "cache/", "/top", "a/**/z"])


@pytest.mark.parametrize(
    ("path", "directory", "pattern"),
    [
        (b"x.tmp", False, "*.tmp"),
        (b"deep/in/x.tmp", False, "*.tmp"),
        (b"keep.tmp", False, None),
        (b"cache", True, "cache/"),
        (b"cache", False, None),
        (b"x/cache/keep.tmp", False, "cache/"),
        (b"top", False, "/top"),
        (b"x/top", False, None),
        (b"a/b/c/z", False, "a/**/z"),
        (b"\xff.tmp", False, "*.tmp"),
        (b"", True, None),
    ],
)
def test_the_last_matching_pattern_decides(path, directory, pattern):
    assert RULES.reason(path, directory=directory) == pattern
    assert RULES.excludes(path, directory=directory) == (pattern is not None)


def test_rules_without_a_pattern_are_false():
    assert not ExcludeRules()
    assert not ExcludeRules(["# only a comment"])
    assert RULES


def test_a_path_thousands_of_directories_deep_is_judged():
    assert RULES.excludes(b"cache/" + b"d/" * 3000 + b"f", directory=False)


def test_a_pattern_that_cannot_be_is_refused():
    with pytest.raises(ConfigInvalid):
        ExcludeRules(["!"])
