"""The tools that are compared: each one as the commands an operator would type.

Every tool gets an encrypted repository in a directory of its own, with the compression it has by
default (borg: lz4; restic: auto, where its version has it; streamd: auto).
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from bench.datasets import measure
from bench.measure import Cost, run

CHECKOUT = Path(__file__).parents[1]
INSTALLED = CHECKOUT / ".tools" / "peers" / "bin"  # by scripts/install_bench_peers.sh
os.environ["PATH"] = f"{INSTALLED}{os.pathsep}{os.environ.get('PATH', os.defpath)}"


class Tool:
    """A backup tool with one repository below `folder`."""

    name = ""
    program = ""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.repository = folder / "repository"
        self.env = {**os.environ, **self.variables()}

    def variables(self) -> dict[str, str]:
        """Return what its processes find in their environment."""
        return {}

    @classmethod
    def is_there(cls) -> bool:
        """Return whether it can be run here."""
        return shutil.which(cls.program) is not None

    @classmethod
    def version(cls) -> str:
        """Return what it says about its version."""
        done = subprocess.run(
            [cls.program, "--version"], capture_output=True, text=True, check=False
        )
        return (done.stdout or done.stderr).splitlines()[0].strip()

    def init(self, tree: Path) -> None:
        """Make an empty repository for `tree`; what was there before is gone."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.create(tree)

    def create(self, tree: Path) -> None:
        raise NotImplementedError

    def backup(self, tree: Path) -> Cost:
        """Back up `tree`."""
        raise NotImplementedError

    def restore(self, tree: Path, to: Path) -> Cost:
        """Restore the newest state into the empty directory `to`."""
        raise NotImplementedError

    def prune(self) -> Cost:
        """Drop every state but the newest, and free the space."""
        raise NotImplementedError

    def size_bytes(self) -> int:
        """Return what the repository occupies."""
        return measure(self.repository)[1]


class Restic(Tool):
    """restic, local repository."""

    name = program = "restic"

    def variables(self) -> dict[str, str]:
        cache = str(self.folder / "cache")
        return {
            "RESTIC_PASSWORD": "bench",
            "RESTIC_REPOSITORY": str(self.repository),
            "RESTIC_CACHE_DIR": cache,
        }

    @classmethod
    def version(cls) -> str:
        done = subprocess.run(["restic", "version"], capture_output=True, text=True, check=False)
        return " ".join(done.stdout.split()[:2])

    def create(self, tree: Path) -> None:
        del tree
        # version 2 of the repository is the one with compression
        run(["restic", "init", "--repository-version", "2"], env=self.env)

    def backup(self, tree: Path) -> Cost:
        return run(["restic", "backup", "--quiet", str(tree)], env=self.env)

    def restore(self, tree: Path, to: Path) -> Cost:
        del tree
        return run(["restic", "restore", "--quiet", "latest", "--target", str(to)], env=self.env)

    def prune(self) -> Cost:
        return run(["restic", "forget", "--quiet", "--keep-last", "1", "--prune"], env=self.env)


class Borg(Tool):
    """borg 1.x, local repository."""

    name = program = "borg"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._number = 0

    def variables(self) -> dict[str, str]:
        return {
            "BORG_PASSPHRASE": "bench",
            "BORG_REPO": str(self.repository),
            "BORG_BASE_DIR": str(self.folder / "base"),
            "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
            "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
        }

    def create(self, tree: Path) -> None:
        del tree
        self._number = 0
        run(["borg", "init", "--encryption", "repokey-blake2"], env=self.env)

    def backup(self, tree: Path) -> Cost:
        self._number += 1
        return run(["borg", "create", f"::state{self._number}", str(tree)], env=self.env)

    def restore(self, tree: Path, to: Path) -> Cost:
        del tree
        return run(["borg", "extract", f"::state{self._number}"], env=self.env, cwd=to)

    def prune(self) -> Cost:
        first = run(["borg", "prune", "--keep-last", "1"], env=self.env)
        second = run(["borg", "compact"], env=self.env)
        return Cost(
            first.wall_seconds + second.wall_seconds,
            first.cpu_seconds + second.cpu_seconds,
            max(first.peak_mib, second.peak_mib),
        )


class Streamd(Tool):
    """This checkout, as one-shot captures into a directory vault."""

    name = "streamd"
    program = sys.executable

    def variables(self) -> dict[str, str]:
        return {"PYTHONPATH": str(CHECKOUT), "NO_COLOR": "1"}

    @classmethod
    def is_there(cls) -> bool:
        # as an installed package is: the first command must not pay for compiling
        compileall = [sys.executable, "-m", "compileall", "-q", "streamd"]
        subprocess.run(compileall, cwd=CHECKOUT, check=False)
        done = subprocess.run(
            [sys.executable, "-m", "streamd", "capture", "--help"],
            cwd=CHECKOUT, capture_output=True, check=False,
        )  # fmt: skip
        return done.returncode == 0

    @classmethod
    def version(cls) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "streamd", "--version"],
            cwd=CHECKOUT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        return done.stdout.strip()

    @property
    def config(self) -> str:
        """Return the path of its configuration."""
        return str(self.folder / "streamd.toml")

    def create(self, tree: Path) -> None:
        # nothing but the newest point is kept: that is what `prune` asks of the others
        self.configure(tree, policy='continuous = "0s"')

    def configure(
        self, tree: Path, *, policy: str = "", vault: str = "", pipeline: str = "", more: str = ""
    ) -> None:
        """Write a configuration, each part as lines of TOML, and make the vault."""
        url = f'url = "file://{self.repository}"'
        Path(self.config).write_text(f"""
[vault]
{vault or url}
key_file = "{self.folder}/vault.key"
[sources.bench]
paths = ["{tree}"]
policy = "bench"
[policies.bench]
{policy}
[pipeline]
{pipeline}
[daemon]
state = "{self.folder}/state"
socket = "{self.folder}/control.sock"
[metrics]
listen = "off"
{more}
""")
        self._run("init", "--kit", str(self.folder / "kit.txt"))

    def backup(self, tree: Path) -> Cost:
        del tree
        return self._run("capture")

    def restore(self, tree: Path, to: Path) -> Cost:
        del tree
        return self._run("restore", "bench", "--to", str(to))

    def prune(self) -> Cost:
        return self._run("retention", "run")

    def _run(self, *arguments: str) -> Cost:
        name, *rest = arguments
        config = ["-c", self.config]
        split = [name, rest.pop(0), *config] if name == "retention" else [name, *config]
        return run([sys.executable, "-m", "streamd", *split, *rest], env=self.env)


TOOLS: tuple[type[Tool], ...] = (Streamd, Restic, Borg)


def available(names: list[str]) -> Iterator[type[Tool]]:
    """Yield the tools that run here, of those named or of all."""
    for tool in TOOLS:
        if (not names or tool.name in names) and tool.is_there():
            yield tool
