"""A host with one source, `web`, and a directory vault: streamd's commands, in this process.

host = PlainHost(tmp_path)
(host.tree / "a").write_text("content")
assert host.run("init", "--kit", str(host.root / "kit.txt")) == 0
"""

from pathlib import Path

from streamd.cli.main import main


class PlainHost:
    """Everything that the host has lies below `root`; the tree, too, unless it is another."""

    def __init__(self, root: Path, *, tree: Path | None = None) -> None:
        self.root, self.tree = root, tree or root / "tree"
        self.vault, self.state = root / "vault", root / "state"
        self.key_file, self.config = root / "host.key", root / "streamd.toml"
        root.mkdir(parents=True, exist_ok=True)
        self.tree.mkdir(parents=True, exist_ok=True)
        self.config.write_text(
            f'[vault]\nurl = "file://{self.vault}"\nkey_file = "{self.key_file}"\n'
            f'[daemon]\nstate = "{self.state}"\nsocket = "{root}/socket"\n'
            f'[metrics]\nlisten = "off"\n[sources.web]\npaths = ["{self.tree}"]\n'
        )

    def run(self, *arguments: str) -> int:
        """Run one command; return its exit code."""
        return main([*arguments, "-c", str(self.config)])
