"""Every vault carries what restores it without streamd."""

import hashlib
import os
import signal
import subprocess
import sys

import pytest
from vaultbuilder import ManualClock

from streamd import rescue
from streamd.effects import SystemEntropy
from streamd.format.crypto import Kem
from streamd.storage.memory import MemoryBlobStore
from streamd.vault.documents import newest_config, put_documents
from streamd.vault.vault import create_vault


async def names(store) -> list[str]:
    return [info.name async for info in store.scan("v/")]


@pytest.mark.asyncio
async def test_a_new_vault_holds_the_rescue_script_and_the_format() -> None:
    store = MemoryBlobStore(ManualClock())
    created = await create_vault(
        store, host_name="h", clock=ManualClock(), entropy=SystemEntropy(), kem=Kem.X25519
    )
    config = await newest_config(store, created.host_key.public.admin)
    assert config is not None
    stored = {name: await store.get(name) for name in await names(store) if "config" not in name}
    assert stored == rescue.documents()
    assert hashlib.sha256(stored[config.specification]).hexdigest() in config.specification
    assert b"# The vault format" in stored[config.specification]
    script = next(data for name, data in stored.items() if name.startswith("v/rescue-"))
    assert script.startswith(b"#!/usr/bin/env python3")


@pytest.mark.asyncio
async def test_an_upgrade_adds_its_own_and_keeps_the_old_ones() -> None:
    store = MemoryBlobStore(ManualClock())
    await store.put("v/rescue-0123.py", b"of an earlier release")
    assert await put_documents(store) == list(rescue.documents())
    assert await put_documents(store) == []
    assert await store.get("v/rescue-0123.py") == b"of an earlier release"
    assert len(await names(store)) == 3


def test_the_rescue_script_ends_without_a_word_when_nobody_reads_on() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, str(rescue.script_path()), "--help"],
            stdout=writing,
            stderr=subprocess.PIPE,
            check=False,
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (-signal.SIGPIPE, b"")
