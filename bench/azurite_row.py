"""The row of a container: the first capture of MIXED into Azurite, by streamd and by restic.

Debian's restic speaks to a container through `rclone serve restic`, which it starts itself. Azurite
is one process on the same machine, in memory, started anew for each capture; its processor time is
not counted, but it competes for the processors, so the rate is a lower bound for both.
"""

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median

from bench import datasets
from bench.figures import Figure, Place
from bench.measure import Cost, Failed, warm
from bench.peers import Restic, Streamd

CONTAINER = "bench"


class StreamdRemote(Streamd):
    """streamd with a container as its vault."""

    account_url = ""
    key = ""

    def create(self, tree: Path) -> None:
        secret = self.folder / "account.key"
        secret.write_text(self.key)
        secret.chmod(0o600)
        vault = (
            f'url = "{self.account_url}/{CONTAINER}"\nauth = "shared-key"\n'
            f'shared_key_file = "{secret}"\ncreate_container = true'
        )
        self.configure(tree, vault=vault, more=f'[local]\npath = "{self.folder}/local"')


class ResticRemote(Restic):
    """restic through rclone, with the right to a container and nothing else."""

    sas_url = ""

    def variables(self) -> dict[str, str]:
        return {
            **super().variables(),
            "RESTIC_REPOSITORY": f"rclone:bench:{CONTAINER}/restic",
            "RCLONE_CONFIG_BENCH_TYPE": "azureblob",
            "RCLONE_CONFIG_BENCH_SAS_URL": self.sas_url,
            "RCLONE_CONFIG": str(self.folder / "rclone.conf"),
        }


def measure(place: Place) -> Iterator[Figure]:
    """Let both capture MIXED in turn; the peer is left out where it or rclone is missing."""
    from azurite import missing_reason

    if reason := missing_reason():
        raise Failed(reason)
    data = datasets.make("MIXED", place.data, quick=place.quick)
    kinds = {"streamd": _streamd}
    if Restic.is_there() and shutil.which("rclone"):
        kinds["restic"] = _restic
    costs: dict[str, list[Cost]] = {name: [] for name in kinds}
    warm(data.path)
    for number in range(place.rounds):
        names = list(kinds)
        for name in names if number % 2 == 0 else reversed(names):
            costs[name].append(kinds[name](place.folder / name, data.path))
    medians = {name: median(cost.wall_seconds for cost in each) for name, each in costs.items()}
    for name, each in costs.items():
        yield Figure("Azurite", f"{name}: rate", data.size_bytes / medians[name] / 1e6, "MB/s")
        yield Figure("Azurite", f"{name}: CPU", median(cost.cpu_seconds for cost in each), "s")
        peak = max(cost.peak_mib for cost in each)
        yield Figure(
            "Azurite", f"{name}: peak RSS", peak, "MiB", 300 if name == "streamd" else None
        )
    if "restic" in costs:
        rate = medians["restic"] / medians["streamd"]
        yield Figure("Azurite", "rate, as a share of restic's", rate, "", 1.0, at_least=True)
        ours, theirs = (median(one.cpu_seconds for one in costs[n]) for n in ("streamd", "restic"))
        yield Figure("Azurite", "client CPU, as a share of restic's", ours / theirs, "", 0.5)


def _streamd(folder: Path, tree: Path) -> Cost:
    from azurite import KEY, Azurite

    with Azurite() as server:
        tool = StreamdRemote(folder)
        tool.account_url, tool.key = server.account_url, KEY
        tool.init(tree)
        return tool.backup(tree)


def _restic(folder: Path, tree: Path) -> Cost:
    from azure.storage.blob import BlobServiceClient, ContainerSasPermissions
    from azure.storage.blob import generate_container_sas as sign
    from azurite import ACCOUNT, KEY, Azurite

    with Azurite() as server:
        with BlobServiceClient(server.account_url, credential=KEY) as client:
            client.create_container(CONTAINER)
        sas = sign(
            ACCOUNT,
            CONTAINER,
            account_key=KEY,
            permission=ContainerSasPermissions.from_string("racwdl"),
            expiry=datetime.now(UTC) + timedelta(days=1),
        )
        ResticRemote.sas_url = f"{server.account_url}/{CONTAINER}?{sas}"
        tool = ResticRemote(folder)
        tool.init(tree)
        return tool.backup(tree)
