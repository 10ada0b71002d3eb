"""Write a configuration as TOML, for `streamd config show` and the demo. Pure.

Knows what a configuration is made of: tables, arrays of tables, texts, numbers, booleans, and
lists of those. What it writes, tomllib reads back to the same values.
"""

import json
from collections.abc import Mapping
from typing import Any


def to_toml(tables: Mapping[str, Any]) -> str:
    """Return `tables` as TOML text; keys without a value (None) are left out."""
    return "\n".join(_table((), tables)).strip("\n") + "\n"


def _table(path: tuple[str, ...], table: Mapping[str, Any]) -> list[str]:
    """Return the lines of `table`: first its own keys, then the tables inside."""
    inner = {key: value for key, value in table.items() if _is_nested(value)}
    lines = [
        f"{_key(key)} = {_value(value)}"
        for key, value in table.items()
        if key not in inner and value is not None
    ]
    for key, value in inner.items():
        name = ".".join(map(_key, (*path, key)))
        if isinstance(value, Mapping):
            body = _table((*path, key), value)
            only_tables = bool(body) and all(_is_nested(entry) for entry in value.values())
            lines += body if only_tables else ["", f"[{name}]", *body]
        else:
            for entry in value:
                lines += ["", f"[[{name}]]", *_table((*path, key), entry)]
    return lines


def _is_nested(value: object) -> bool:
    if isinstance(value, list | tuple):
        return bool(value) and all(isinstance(entry, Mapping) for entry in value)
    return isinstance(value, Mapping)


def _key(text: str) -> str:
    return text if text.replace("-", "_").isidentifier() and text.isascii() else _value(text)


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_value(entry) for entry in value)}]"
    if isinstance(value, int | float):
        return str(value)
    # a JSON string is a TOML basic string, DEL aside
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
