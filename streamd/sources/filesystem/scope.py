"""Which paths belong to a source: its roots, what is excluded, what is never protected."""

from streamd.sources.filesystem.rules import ExcludeRules


def join(directory: bytes, name: bytes) -> bytes:
    """Return the path of `name` in the absolute `directory`."""
    return directory + name if directory == b"/" else directory + b"/" + name


def split(path: bytes) -> tuple[bytes, bytes]:
    """Return the directory and the name of an absolute path; the name of "/" is "."."""
    parent, _, name = path.rpartition(b"/")
    return parent or b"/", name or b"."


def below(path: bytes, directory: bytes) -> bool:
    """Say whether `path` is `directory` or something in it."""
    return directory in (path, b"/") or path.startswith(directory + b"/")


class TreeScope:
    """The one place that says whether a path is protected. Shared by watching and looking.

    `ignored` are directories of streamd itself: they are invisible, as if they did not exist.
    """

    def __init__(
        self,
        roots: tuple[bytes, ...],
        *,
        rules: ExcludeRules,
        tags: tuple[bytes, ...] = (),
        ignored: tuple[bytes, ...] = (),
    ) -> None:
        self.roots = roots
        self.rules = rules
        self.tags = frozenset(tags)
        self._ignored = ignored
        self._hidden: dict[bytes, set[bytes]] = {}
        for path in ignored:
            parent, name = split(path)
            self._hidden.setdefault(parent, set()).add(name)

    def root_of(self, path: bytes) -> bytes | None:
        """Return the root that `path` is or lies below."""
        for root in self.roots:
            if below(path, root):
                return root
        return None

    def hidden_in(self, directory: bytes) -> set[bytes] | None:
        """Return the names in `directory` that are streamd's own; None when there are none."""
        return self._hidden.get(directory)

    def relative(self, root: bytes, path: bytes) -> bytes:
        """Return `path` relative to `root`, as the exclude rules want it."""
        return path[len(root) :].lstrip(b"/")

    def excluding_pattern(self, path: bytes, *, directory: bool) -> str | None:
        """Return the pattern that leaves `path` out, None when no pattern does."""
        root = self.root_of(path)
        if root is None:
            return None
        return self.rules.reason(self.relative(root, path), directory=directory)

    def protects(self, path: bytes, *, directory: bool) -> bool:
        """Say whether `path` is in the source and not left out."""
        root = self.root_of(path)
        if root is None:
            return False
        for ignored in self._ignored:
            if below(path, ignored):
                return False
        return not (
            self.rules and self.rules.excludes(self.relative(root, path), directory=directory)
        )
