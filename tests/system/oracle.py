"""Judges a restored tree by the mutator's own log.

A path changes from one state to the next somewhere between the start and the end of an operation,
so each state has an interval in which the path *may* have been in it. A tree restored as of T is
right when every path is in a state whose interval meets [T - rpo, T]; a path untouched in that
time has one such state only, so it has to be exact. Judged are presence, type, content, size,
mode, owner, target, user xattrs, the modification time of files, and which names share an inode.
"""

import json
import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import NamedTuple

from system.model import State, content_digest, xattr_digest
from system.tree import ROOT, Entry, listing

FACTS = ("kind", "mode", "uid", "gid", "size", "content", "mtime_ns", "target", "xattrs")
MTIME = FACTS.index("mtime_ns")
Facts = tuple[object, ...]


class Span(NamedTuple):
    """A state and the interval, in microseconds, in which its path may have been in it."""

    since_us: float
    until_us: float
    state: tuple[object, ...] | None  # FACTS and the inode's number; None: nothing there


@dataclass(frozen=True, slots=True)
class Violation:
    """A path that is not as it may be."""

    path: bytes
    fault: str  # missing, extra, stale, mixed, kind, linked, unlinked, or the attributes' names
    detail: str

    def __str__(self) -> str:
        return f"{self.fault}: {self.path!r}: {self.detail}"


class Oracle:
    """What the log says about every path at every instant."""

    def __init__(self, log: Path) -> None:
        self._spans: dict[bytes, list[Span]] = {}
        self.first_us, self.last_us = _read(log, self._spans)

    def possible(self, path: bytes, since_us: float, until_us: float) -> list[Span]:
        """Return the spans of a path that meet [since_us, until_us]."""
        return [
            span
            for span in self._spans.get(path, [Span(-inf, inf, None)])
            if span.since_us <= until_us and span.until_us >= since_us
        ]

    def judge(self, restored: str | Path, *, at_us: int, rpo_us: int) -> list[Violation]:
        """Return what is wrong with a tree restored as of `at_us`; [] when nothing is."""
        tree = listing(str(restored), contents=False)
        tree.pop(ROOT)
        top = os.fsencode(restored)
        shown = {path: _facts(top + b"/" + path, entry) for path, entry in tree.items()}
        linked = {path: entry.linked for path, entry in tree.items() if entry.linked}
        return self.judge_shown(shown, linked, since_us=at_us - rpo_us, until_us=at_us)

    def judge_shown(
        self,
        shown: dict[bytes, Facts],
        linked: dict[bytes, tuple[bytes, ...]],
        *,
        since_us: float,
        until_us: float,
    ) -> list[Violation]:
        """Return what is wrong with the facts shown of every path; `linked`: names of one inode."""
        found: list[Violation] = []
        matched: dict[bytes, list[tuple[object, ...]]] = {}
        for path in self._spans.keys() | shown.keys():
            spans = self.possible(path, since_us, until_us)
            got = shown.get(path)
            fits = [span.state for span in spans if _fits(span.state, got)]
            if not fits:
                found.append(self._violation(path, got, spans))
            elif got is not None:
                matched[path] = [state for state in fits if state is not None]
        found += self._wrong_links(linked, matched, since_us, until_us)
        return sorted(found, key=lambda violation: violation.path)

    def judge_path(self, path: bytes, got: Facts | None, since_us: float, until_us: float) -> bool:
        """Say whether a path may be as shown."""
        return any(_fits(span.state, got) for span in self.possible(path, since_us, until_us))

    def _violation(
        self, path: bytes, got: tuple[object, ...] | None, spans: list[Span]
    ) -> Violation:
        states = [span.state for span in spans]
        detail = f"is {_text(got)}, may be {' or '.join(_text(state) for state in states)}"
        history = self._spans.get(path, [])
        if got is None:
            return Violation(path, "missing", detail)
        when = [span for span in history if _fits(span.state, got)]
        if when:
            instants = ", ".join(f"[{span.since_us:.0f}, {span.until_us:.0f}]" for span in when)
            fault = "extra" if states == [None] else "stale"
            return Violation(path, fault, f"{detail}; was so in {instants}")
        if states == [None]:
            return Violation(path, "extra", detail)
        there = [state for state in states if state is not None]
        if all(state[0] != got[0] for state in there):
            return Violation(path, "kind", detail)
        content = FACTS.index("content")
        if all(state[content] != got[content] for state in there):
            return Violation(path, "mixed", f"{detail}; it never had this content then")
        best = min(there, key=lambda state: len(_differing(state, got)))
        return Violation(path, ", ".join(_differing(best, got)), detail)

    def _wrong_links(
        self,
        linked: dict[bytes, tuple[bytes, ...]],
        matched: dict[bytes, list[tuple[object, ...]]],
        since_us: float,
        until_us: float,
    ) -> Iterable[Violation]:
        """Names that share an inode without ever having done so, and names that ought to."""
        inodes = {path: {state[-1] for state in states} for path, states in matched.items()}
        for path, together in linked.items():
            if together[0] == path:
                known = [inodes[name] for name in together if name in inodes]
                if known and not set.intersection(*known):
                    yield Violation(path, "linked", f"shares its inode with {together!r}")
        steady = defaultdict(list)
        for path, numbers in inodes.items():
            if len(numbers) == 1 and len(self.possible(path, since_us, until_us)) == 1:
                steady[next(iter(numbers))].append(path)
        for names in steady.values():
            groups = {linked.get(name, (name,)) for name in names}
            if len(groups) > 1:
                yield Violation(min(names), "unlinked", f"should share one inode: {sorted(names)}")


def _read(log: Path, spans: dict[bytes, list[Span]]) -> tuple[int, int]:
    """Fill `spans` from the log; return the start of the first and the end of the last operation.

    A span is open (`until_us` infinite) until the next operation on its path closes it.
    """
    first_us, end_us = 0, 0
    with log.open(encoding="ascii") as lines:
        for line in lines:
            operation = json.loads(line)
            start_us, end_us = operation["start"], operation["end"]
            first_us = first_us or start_us
            for name, states in operation["effects"]:
                path = name.encode("utf-8", "surrogateescape")
                history = spans.setdefault(path, [Span(-inf, inf, None)])
                history[-1] = history[-1]._replace(until_us=end_us)
                history += [Span(start_us, end_us, _state(state)) for state in states[:-1]]
                history.append(Span(start_us, inf, _state(states[-1])))
    return first_us, end_us


def _state(recorded: State) -> tuple[object, ...] | None:
    if recorded is None:
        return None
    recorded[7] = str(recorded[7]).encode("utf-8", "surrogateescape")
    return tuple(recorded)


def _facts(full: bytes, entry: Entry) -> tuple[object, ...]:
    is_file = entry.kind == "file"
    return (
        entry.kind,
        entry.mode,
        entry.uid,
        entry.gid,
        entry.size,
        content_digest(full) if is_file else "",
        entry.mtime_ns if is_file else None,
        entry.target,
        xattr_digest(entry.xattrs),
    )


def _fits(state: tuple[object, ...] | None, got: tuple[object, ...] | None) -> bool:
    if state is None or got is None:
        return state is got
    return not _differing(state, got)


def _differing(state: tuple[object, ...], got: tuple[object, ...]) -> list[str]:
    return [
        name
        for index, name in enumerate(FACTS)
        if state[index] != got[index] and not (index == MTIME and state[index] is None)
    ]


def _text(state: tuple[object, ...] | None) -> str:
    if state is None:
        return "absent"
    facts = zip(FACTS, state, strict=False)
    shown = (f"{name}={fact:o}" if name == "mode" else f"{name}={fact!r}" for name, fact in facts)
    return f"({' '.join(shown)})"
