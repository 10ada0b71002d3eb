"""The vault that the row of versions measures is one that a host could have written."""

import json

import pytest

from bench import growth, version_scale
from bench.version_scale import QUESTIONS, Host, ask
from streamd.vault.state_reader import StateReader


@pytest.fixture
def few(monkeypatch) -> None:
    for name, value in (("FILES", 20), ("EACH", 10), ("DAY", 4)):
        monkeypatch.setattr(version_scale, name, value)


@pytest.mark.asyncio
async def test_every_question_is_answered_of_a_vault_that_grew_twice(few, tmp_path) -> None:
    host = Host(tmp_path / "vault")
    for versions in (60, 155):
        facts = await host.grow(versions)
        assert facts["versions"] == versions
        for what in QUESTIONS:
            facts[what] = await ask(tmp_path / "vault", what)
            assert facts[what]["reads"] > 0
        assert facts["latest"]["found"] == 22  # with the root and what is above it
        assert facts["history"]["found"] >= versions
        figures = {name for name, _, _ in growth._of_versions(facts)}
        assert {"index per version", "the latest state, memory", "gaps, reads"} <= figures


@pytest.mark.asyncio
async def test_the_latest_state_has_the_content_of_the_last_commit(few, tmp_path) -> None:
    host = Host(tmp_path / "vault")
    await host.grow(90)
    facts = json.loads((tmp_path / "vault" / "facts.json").read_text())
    small = host._host
    reader = StateReader(small.vault)
    latest, middle = [
        await small.files_at(version_scale.SOURCE, facts[what]) for what in ("latest", "middle")
    ]
    assert latest.keys() == middle.keys()
    assert len(latest) == 20
    assert latest != middle
    assert not await reader.gaps(version_scale.SOURCE)


@pytest.mark.slow
def test_the_row_of_chunks_runs_as_a_process_of_its_own(tmp_path, monkeypatch) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    (facts,) = growth._module(tmp_path, "bench.index_scale", "3000")
    assert facts["chunks"] == 3000
    assert facts["catalog_bytes_per_chunk"] > 40
    assert facts["miss_us_per_chunk"] > 0
