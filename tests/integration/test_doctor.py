"""The doctor finds each missing right, each unwanted one, and each setting, by itself."""

import asyncio
import json
from datetime import UTC, datetime, timedelta

import pytest
from aiohttp import web
from azure.storage.blob import ContainerSasPermissions, generate_container_sas
from blobserver.records import EMULATOR_KEY
from blobserver.server import BlobServer, in_thread
from system.daemon_process import Daemon

from streamd.storage.azure_management import lifecycle_rules

FULL = "rcwdl"


@pytest.fixture
def server():
    with in_thread(BlobServer()) as server:
        yield server


def host(tmp_path, server, permissions=FULL, *, prefix="host", days=30.0) -> Daemon:
    """An installation whose SAS token has these permissions; the vault is made with all of them."""
    tree = tmp_path / "tree"
    tree.mkdir(exist_ok=True)
    secret = tmp_path / "sas"
    _write_token(secret, FULL, 30.0)
    daemon = Daemon(
        tmp_path / "streamd",
        tree,
        vault_url=f"{server.account_url}/backups/{prefix}",
        vault_options={"auth": "sas", "sas_file": str(secret), "create_container": True},
    )
    if "backups" not in server.service.account.containers:
        _create_container(server)
    daemon.init()
    _write_token(secret, permissions, days)
    return daemon


def _create_container(server) -> None:
    from azure.storage.blob import ContainerClient

    key = {"account_name": "devstoreaccount1", "account_key": EMULATOR_KEY}
    options = {"api_version": "2024-11-04"}
    with ContainerClient(server.account_url, "backups", key, **options) as container:
        container.create_container()


def _write_token(path, permissions: str, days: float) -> None:
    now = datetime.now(UTC)
    token = generate_container_sas(
        "devstoreaccount1",
        "backups",
        account_key=EMULATOR_KEY,
        permission=ContainerSasPermissions.from_string(permissions),
        start=now - timedelta(days=60),
        expiry=now + timedelta(days=days),
    )
    path.write_text(token)
    path.chmod(0o600)


def checks(daemon: Daemon, code: int) -> dict[str, dict[str, str]]:
    report = daemon.facts("doctor", codes=(code,))
    assert report["healthy"] is (code == 0)
    return {one["check"]: one for one in report["checks"]}


@pytest.mark.root
def test_a_healthy_host_with_all_rights_passes(tmp_path, server) -> None:
    account = server.service.account
    account.versioning, account.soft_delete = True, timedelta(days=14)
    found = checks(host(tmp_path, server), 0)
    for name in ("reach", "clock", "create", "read", "list", "create only once", "credential"):
        assert found[name]["verdict"] == "ok", found[name]
    assert found["versioning"]["detail"] == "on"
    assert found["hierarchical namespace"]["verdict"] == "ok"
    assert found["watch tree"]["detail"].endswith("fanotify")
    assert not [
        name
        for name in server.service.account.containers["backups"].blobs
        if "doctor" in name and server.service.account.containers["backups"].blobs[name].current
    ]


@pytest.mark.root
@pytest.mark.parametrize(
    ("permissions", "failing"),
    [("cwdl", {"read"}), ("rdl", {"create"}), ("rcwd", {"list"}), ("rwdl", set())],
)
def test_each_missing_right_is_a_line_with_its_remedy(
    tmp_path, server, permissions, failing
) -> None:
    found = checks(host(tmp_path, server, permissions), 3 if failing else 0)
    failed = {name for name, one in found.items() if one["verdict"] == "fail"}
    assert failed == failing
    assert all(found[name]["remedy"] for name in failed)


@pytest.mark.root
def test_a_write_only_host_that_can_destroy_is_a_failure(tmp_path, server) -> None:
    daemon = host(tmp_path, server)
    _make_write_only(daemon)
    found = checks(daemon, 3)
    assert {name for name, one in found.items() if one["verdict"] == "fail"} == {
        "overwrite",
        "delete",
    }
    _write_token(tmp_path / "sas", "rcl", 30.0)
    found = checks(daemon, 0)
    assert found["delete"]["verdict"] == found["overwrite"]["verdict"] == "ok"
    assert "refused" in found["delete"]["detail"]


def _make_write_only(daemon: Daemon) -> None:
    from streamd.format.keys import decode_host_key, encode_host_key

    path = daemon.workdir / "vault.key"
    key = decode_host_key(path.read_bytes(), str(path))
    path.write_bytes(encode_host_key(_without_private(key)))


def _without_private(key):
    import msgspec

    return msgspec.structs.replace(key, private=None)


@pytest.mark.root
def test_clock_namespace_expiry_and_mistakes_are_found(tmp_path, server) -> None:
    daemon = host(tmp_path, server, days=2)
    server.service.clock.offset = timedelta(minutes=2)
    server.service.account.is_hierarchical = True
    found = checks(daemon, 3)
    assert found["clock"]["verdict"] == "warn"
    assert "behind" in found["clock"]["detail"]
    assert found["hierarchical namespace"]["verdict"] == "fail"
    assert found["credential"]["verdict"] == "warn"
    assert found["versioning"]["verdict"] == "warn"
    server.service.account.containers.clear()
    assert checks(daemon, 3)["reach"]["verdict"] == "fail"


@pytest.mark.root
def test_a_directory_vault_is_tried_too_and_left_clean(tmp_path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    daemon = Daemon(tmp_path / "streamd", tree)
    daemon.init()
    found = checks(daemon, 0)
    for name in ("create", "read", "delete", "key file", "daemon.state file system"):
        assert found[name]["verdict"] == "ok"
    assert not list(daemon.vault.glob("doctor/*"))
    daemon.vault.rename(tmp_path / "away")
    assert checks(daemon, 3)["create"]["verdict"] == "fail"


@pytest.mark.parametrize("status", [200, 404, 403])
def test_lifecycle_rules_are_read_from_the_management_plane(status) -> None:
    asked = []

    async def answer(request: web.Request) -> web.Response:
        asked.append((request.path, request.headers["Authorization"]))
        rules = [{"name": "clean", "enabled": True, "definition": {}}, "odd"]
        body = {"properties": {"policy": {"rules": rules}}}
        return web.Response(status=status, text=json.dumps(body))

    async def scenario():
        app = web.Application()
        app.router.add_get("/{tail:.*}", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        try:
            return await lifecycle_rules("t", "/acc", endpoint=f"http://127.0.0.1:{port}")
        finally:
            await runner.cleanup()

    found = asyncio.run(scenario())
    assert asked == [("/acc/managementPolicies/default", "Bearer t")]
    if status == 200:
        assert [rule["name"] for rule in found] == ["clean"]
    else:
        assert found == [] if status == 404 else "Reader" in found
