"""A key is found on the line where a reader would look for it."""

import tomllib

from hypothesis import given
from hypothesis import strategies as st

from streamd.config.locate import Place, Places, locate

TEXT = '''\
timezone = "UTC" # a comment with [brackets]
[vault]
url = "https://a/b#c"

[sources.web]
paths = [
  "/srv/[x]", # ]
  "/etc",
]
"exclude" = ["""
[not.a.header]
key = 1
""", '[']
rpo = "15s"
[sources."odd name"]
limits = { a = 1, b = 2 }
x.y = 3
[[bandwidth]]
days = "mon"
[[bandwidth]]
upload = "5MiB/s"
[bandwidth.extra]
z = 1
'''


def test_every_key_has_its_line() -> None:
    tomllib.loads(TEXT)
    lines = locate(TEXT)
    assert lines == {
        ("timezone",): 1,
        ("vault",): 2,
        ("vault", "url"): 3,
        ("sources", "web"): 5,
        ("sources", "web", "paths"): 6,
        ("sources", "web", "exclude"): 10,
        ("sources", "web", "rpo"): 14,
        ("sources", "odd name"): 15,
        ("sources", "odd name", "limits"): 16,
        ("sources", "odd name", "limits", "a"): 16,
        ("sources", "odd name", "limits", "b"): 16,
        ("sources", "odd name", "x"): 17,
        ("sources", "odd name", "x", "y"): 17,
        ("bandwidth", 0): 18,
        ("bandwidth", 0, "days"): 19,
        ("bandwidth", 1): 20,
        ("bandwidth", 1, "upload"): 21,
        ("bandwidth", 1, "extra"): 22,
        ("bandwidth", 1, "extra", "z"): 23,
    }


def test_an_unknown_place_is_that_of_the_table_around_it() -> None:
    places = Places({("vault",): Place("f", 7)}, "f")
    assert str(places.find(("vault", "url"))) == "f:7"
    assert str(places.find(("local",))) == "f:1"


def test_places_are_no_part_of_a_comparison() -> None:
    assert Places({}, "a") == Places({("x",): Place("b", 2)}, "b")
    assert hash(Places({}, "a")) == hash(Places({}, "b"))


@given(st.text(alphabet="[]{}\"'#=.\n ax\\"))
def test_any_text_yields_a_map(text: str) -> None:
    lines = locate(text)
    assert all(1 <= line <= text.count("\n") + 1 for line in lines.values())
