"""Trees of `system.tree` as JSON, for what is committed."""

from typing import Any

from system.tree import Entry


def as_json(tree: dict[bytes, Entry]) -> dict[str, dict[str, Any]]:
    """Return a tree with bytes as Latin-1 text."""
    found = {}
    for path, entry in tree.items():
        fields = {name: getattr(entry, name) for name in Entry.__slots__}
        fields["target"] = entry.target.decode("latin-1")
        fields["xattrs"] = [[name, value.decode("latin-1")] for name, value in entry.xattrs]
        fields["linked"] = [name.decode("latin-1") for name in entry.linked]
        found[path.decode("latin-1")] = fields
    return found


def from_json(tree: dict[str, dict[str, Any]]) -> dict[bytes, Entry]:
    """Return what `as_json` was given."""
    found = {}
    for path, fields in tree.items():
        found[path.encode("latin-1")] = Entry(
            **{
                **fields,
                "target": fields["target"].encode("latin-1"),
                "xattrs": tuple(
                    (name, value.encode("latin-1")) for name, value in fields["xattrs"]
                ),
                "linked": tuple(name.encode("latin-1") for name in fields["linked"]),
            }
        )
    return found
