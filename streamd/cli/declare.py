"""How a command says what it takes, in the annotations of its function.

In typer's words, but without typer: loading that takes a tenth of the start of a command, and is
of use for help and for saying what is wrong with a command line (`lazy`). What is right with one
follows from what is said here (`plain_line`).
"""

from typing import Any

import msgspec


class Declared(msgspec.Struct, frozen=True):
    """An option or an argument; `facts` are what typer calls them."""

    is_option: bool
    names: tuple[str, ...]
    facts: dict[str, Any]


def option(*names: str, **facts: Any) -> Declared:
    """Declare an option, called `names`, or else as the parameter."""
    return Declared(True, names, facts)


def argument(**facts: Any) -> Declared:
    """Declare an argument."""
    return Declared(False, (), facts)
