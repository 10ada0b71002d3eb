"""What is configured and not acted on is said at the start and at each reload."""

from types import SimpleNamespace

from streamd.config.model import PolicyConfig
from streamd.daemon import reloading
from streamd.daemon.meters import Meters
from streamd.daemon.reloading import describe_generation


def test_the_log_warns_of_a_key_that_nothing_acts_on(monkeypatch) -> None:
    said: list[tuple[str, str]] = []
    log = SimpleNamespace(warning=lambda event, *, what: said.append((event, what)))
    monkeypatch.setattr(reloading, "_LOG", log)
    policies = {"gold": PolicyConfig(keep_deleted_seconds=90 * 86_400), "iron": PolicyConfig()}
    daemon = SimpleNamespace(
        meters=Meters(), generation=1, config=SimpleNamespace(policies=policies)
    )
    describe_generation(daemon)
    [(event, what)] = said
    assert event == "config-not-heeded"
    assert what.startswith('policies.gold.keep_deleted = "90d" is not acted on')
    daemon.config.policies = {"iron": PolicyConfig()}
    describe_generation(daemon)
    assert len(said) == 1
