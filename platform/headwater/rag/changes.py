"""What changed between two answers to the same question."""

from __future__ import annotations

import difflib
import re

from headwater.chunks import sentences
from headwater.records.answers import Change, Rerun, StoredAnswer

_MARKS = re.compile(r" ?\[\d+\]")


def compared(before: StoredAnswer, after: StoredAnswer) -> Rerun:
    """The difference of two answers, sentence by sentence, and of what they were made from."""
    old, new = _said(before.answer.text), _said(after.answer.text)
    changes: list[Change] = []
    for tag, i, j, k, m in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if tag == "equal":
            changes += [Change("kept", text) for text in old[i:j]]
        else:
            changes += [Change("removed", text) for text in old[i:j]]
            changes += [Change("added", text) for text in new[k:m]]
    was, now = ({r.address for r in answer.read} for answer in (before, after))
    marks = before.answer.coverage.watermark
    stored = {
        topic: more
        for topic, mark in after.answer.coverage.watermark.items()
        if (more := mark.stored - (marks[topic].stored if topic in marks else 0)) > 0
    }
    found = tuple(r.address for r in after.read if r.address not in was)
    lost = tuple(r.address for r in before.read if r.address not in now)
    signs = {"added": "+", "removed": "-", "kept": " "}
    diff = "\n".join(f"{signs[c.kind]} {c.text}" for c in changes)
    summary = _summary(before, after, changes, sum(stored.values()))
    return Rerun(before.answer, after.answer, tuple(changes), stored, found, lost, summary, diff)


def _said(text: str) -> list[str]:
    """The sentences of an answer, without marks: their numbers change when anything does."""
    plain = _MARKS.sub("", text)
    return [" ".join(plain[a:b].split()) for a, b in sentences(plain)]


def _summary(before: StoredAnswer, after: StoredAnswer, changes: list[Change], stored: int) -> str:
    count = {kind: sum(c.kind == kind for c in changes) for kind in ("added", "removed")}
    records = "1 record was" if stored == 1 else f"{stored:,} records were" if stored else "nothing was"
    since = f"{records} stored since"
    if before.answer.abstained and not after.answer.abstained:
        told = "there is an answer now"
    elif after.answer.abstained and not before.answer.abstained:
        told = "there is no answer any more"
    elif not count["added"] and not count["removed"]:
        told = "the answer is the same"
    else:
        parts = [f"{n} {'sentence' if n == 1 else 'sentences'} {kind}" for kind, n in count.items() if n]
        told = " and ".join(parts)
    other = f"; answered by {after.answer.model}, before by {before.answer.model}"
    return f"{told}; {since}{other if after.answer.model != before.answer.model else ''}."
