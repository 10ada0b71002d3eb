"""What an operator can meet is written down: errors, metrics, commands, and nothing else is."""

import re
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from streamd.cli.errors_command import kinds
from streamd.errors import PermanentError, StreamdError, TransientError
from streamd.observe.metrics import Metrics

ROOT = Path(__file__).parents[2]
RUNBOOK = ROOT / "docs" / "runbook"
HEADINGS = ("**What it means.**", "**What to look at**", "**What to do**", "**What is safe")


def test_every_error_has_its_own_slug() -> None:
    codes = [kind.code for kind in kinds()]
    assert len(codes) == len(set(codes))
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", code) for code in codes)


def test_every_class_of_error_that_is_raised_has_a_slug() -> None:
    found: list[type[StreamdError]] = [StreamdError]
    for kind in found:
        found.extend(kind.__subclasses__())
    ours = [kind for kind in found if kind.__module__ == StreamdError.__module__]
    assert set(ours) - set(kinds()) == {TransientError, PermanentError}


def test_every_slug_has_a_runbook_page_and_every_page_a_slug() -> None:
    assert sorted(page.stem for page in RUNBOOK.glob("*.md")) == sorted(k.code for k in kinds())


@pytest.mark.parametrize("page", sorted(RUNBOOK.glob("*.md")), ids=lambda page: page.stem)
def test_a_runbook_page_answers_the_four_questions(page: Path) -> None:
    text = page.read_text("utf-8")
    assert text.startswith(f"# {page.stem}\n")
    assert [heading for heading in HEADINGS if heading not in text] == []
    for target in re.findall(r"\]\(([^)#:]+)", text):
        assert (page.parent / target).exists(), f"broken link: {target}"


def test_every_remedy_is_one_line_and_says_what_to_do() -> None:
    for kind in kinds():
        assert kind.remedy, kind
        assert "\n" not in kind.remedy
        assert not kind.remedy.endswith("."), "it follows a semicolon"


def test_every_metric_is_documented_and_no_other() -> None:
    exported = {info.name for info in Metrics(CollectorRegistry()).catalogue()}
    documented = (ROOT / "docs" / "metrics.md").read_text("utf-8")
    assert [name for name in sorted(exported) if f"`{name}`" not in documented] == []
    for page in sorted(RUNBOOK.glob("*.md")):
        named = set(re.findall(r"\bstreamd_[a-z_]+", page.read_text("utf-8")))
        assert named <= exported, f"{page.name} names a metric that does not exist"
