"""The rescue script reads a vault in a container with nothing but a SAS and the kit."""

import asyncio
import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from azure.storage.blob import ContainerSasPermissions, generate_container_sas
from blobserver import listing as paging
from blobserver.faults import Fault, operation
from blobserver.server import BlobServer, in_thread
from golden.trees import from_json
from rescue_script import load
from system.tree import difference, listing

from streamd.storage.azure import AzureBlobStore
from streamd.storage.azure_access import AzureAccess
from streamd.storage.port import BlobName

GOLDEN = Path(__file__).parents[1] / "golden" / "vaults" / "v1"
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
rescue = load()


async def _upload(url: str) -> None:
    store = AzureBlobStore(
        AzureAccess(url=url, auth="shared-key", secret=KEY, create_container=True)
    )
    try:
        await store.ensure_container()
        for path in sorted((GOLDEN / "vault").rglob("*")):
            if path.is_file():
                name = BlobName(str(path.relative_to(GOLDEN / "vault")))
                await store.put(name, path.read_bytes())
    finally:
        await store.aclose()


@pytest.fixture
def container() -> Iterator[tuple[BlobServer, str]]:
    """A container with the golden vault below a prefix."""
    with in_thread(BlobServer()) as server:
        url = f"{server.account_url}/vaults/hosts/one"
        asyncio.run(_upload(url))
        yield server, url


def sas(**permission: bool) -> str:
    return generate_container_sas(
        ACCOUNT,
        "vaults",
        account_key=KEY,
        permission=ContainerSasPermissions(**permission),
        expiry=datetime.now(UTC) + timedelta(hours=1),
    )


def newest() -> dict[str, Any]:
    rows = json.loads((GOLDEN / "expected.json").read_text("utf-8"))
    return [row for row in rows if row["source"] == "web"][-1]


def restore(url: str, target: Path, *more: str) -> int:
    kit = ["--kit", str(GOLDEN / "kit.txt")]
    # in the order of the README: options may stand anywhere
    return rescue.main(["restore", *kit, "web", str(target), "--vault", url, *more])


@pytest.mark.root
def test_a_sas_and_the_kit_restore_it_through_many_pages_and_a_bad_link(
    container: tuple[BlobServer, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    server, url = container
    monkeypatch.setattr(paging, "_PAGE_MAX", 7)
    monkeypatch.setattr(rescue.time, "sleep", lambda _: None)
    server.faults.add(Fault("status", 2, operation("get"), status=503))
    server.faults.add(Fault("status", 1, operation("list"), status=500))
    code = restore(f"{url}?{sas(read=True, list=True)}", tmp_path / "out")
    printed = capfd.readouterr()
    assert code == 0, printed.err
    assert "sig=" not in printed.out + printed.err
    assert difference(from_json(newest()["tree"]), listing(tmp_path / "out")) == []


def test_the_sas_may_come_from_the_environment(
    container: tuple[BlobServer, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("STREAMD_SAS", f"?{sas(read=True, list=True)}\n")
    place = ["--vault", container[1], "--key-file", str(GOLDEN / "host.key")]
    assert rescue.main(["list", *place]) == 0
    text = capsys.readouterr().out
    assert "/tmp/streamd-golden/web" in text
    assert text.count("  kept") >= 2
    assert rescue.main(["ls", "papers", *place]) == 0
    assert "/tmp/streamd-golden/papers/a/new ä.txt" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("permission", "code"), [({"list": True}, 5), ({"read": True}, 5), ({"write": True}, 5)]
)
def test_a_sas_that_may_not_read_is_told_apart(
    container: tuple[BlobServer, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    permission: dict[str, bool],
    code: int,
) -> None:
    assert restore(f"{container[1]}?{sas(**permission)}", tmp_path / "out") == code
    message = capsys.readouterr().err
    assert "is the SAS right?" in message
    assert "sig=" not in message
    assert not os.path.exists(tmp_path / "out")


def test_an_outage_is_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(rescue.time, "sleep", lambda _: None)
    assert restore("http://127.0.0.1:9/account/container?sig=secret", tmp_path / "out") == 6
    assert "secret" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "place", ["https://account.blob.core.windows.net/", "http://example.com/container?sig=x"]
)
def test_what_names_no_container_is_refused(place: str, tmp_path: Path) -> None:
    assert restore(place, tmp_path / "out") == 2
