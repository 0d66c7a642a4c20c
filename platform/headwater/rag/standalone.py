"""A turn of a conversation made to stand alone, by rules: what "why did it fail?" or "and in payments?" asks for.

A turn is searched for three times and the scores are added, the turn itself counting most: alone, behind the question before
it, and behind the answer before it. One text of all turns finds less than the last turn alone (a change of subject drowns in
what was said before), and rewriting by rules errs; added scores keep what the turn itself finds and lift what fits both. How
much the context counts depends on how much the turn leans on it: by pronouns, by openings such as "and" or "what about", by
having few words of its own. Figures: docs/benchmarks.md (`bench_conversation.py`).

The idea of weighing history by how much a turn needs it is that of Lin et al., "Multi-Stage Conversational Passage Retrieval"
(TOIS 2021); adding scores of several wordings is CombSUM (Fox and Shaw, TREC-2, 1994).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from headwater.llm.extractive import content_words
from headwater.rag.question import understand

LEAST, MOST = 0.4, 1.0  # weight of the context against the turn's own 1, for turns that lean least and most
LEANING = 1.0  # from which a turn is read together with what it leans on
_ANSWER_CHARS = 300  # of the answer before that are searched with
_QUESTION_CHARS = 600
_SUBJECT_WORDS = 8
_TURNS = 6  # of the newest questions that one may lean on, each on the one before it


@dataclass(frozen=True, slots=True)
class Turn:
    """Something said before."""

    role: Literal["user", "assistant"]
    text: str


@dataclass(frozen=True, slots=True)
class Wording:
    """One text to search for, and what its scores count."""

    text: str
    weight: float


@dataclass(frozen=True, slots=True)
class Standalone:
    """A question as it is read on its own: its `text`, and the `wordings` it is searched for by, the turn's own first;
    `leaning` says how much it needs the turns before it (0 to 1)."""

    text: str
    wordings: tuple[Wording, ...]
    leaning: float = 0.0


def alone(question: str) -> Standalone:
    """A question that nothing was said before."""
    return Standalone(question, (Wording(question, 1.0),))


def contextualise(question: str, before: Sequence[Turn], now_ms: int) -> Standalone:
    """The question in the light of the turns before it, oldest first."""
    turns = [t.text[:_QUESTION_CHARS] for t in before if t.role == "user" and t.text.strip()]
    asked = turns[-1] if turns else ""
    answered = before[-1].text[:_ANSWER_CHARS] if before and before[-1].role == "assistant" else ""
    if not asked and not answered:
        return alone(question)
    lean = leaning(question)
    context = LEAST + (MOST - LEAST) * min(1.0, lean / 1.5)
    own = 1.0 if set(content_words(question)) - _EMPTY_HERE else 0.0  # "why?" finds nothing by itself
    wordings = [Wording(question, own)] if own else []
    around = [text for text in (asked, _plain(answered)) if text]
    wordings += [Wording(f"{text} {question}", context / len(around)) for text in around]
    text = question if lean < LEANING or not asked else _completed(question, _told(turns[-_TURNS:], now_ms), now_ms)
    return Standalone(text, tuple(wordings), min(1.0, lean / 2))


_POINTING = re.compile(
    r"\b(?:it|its|they|them|their|theirs|this|that|these|those|he|him|his|she|her|hers|ones?|such|same|former|latter|others?"
    r"|another|else)\b",
    re.IGNORECASE,
)
_THEREFORE = re.compile(
    r"^\W*(?:and|but|or|so|also|then|what about|how about|what else|why(?: not)?\W*$|how(?: come)?\W*$|in that case|when\W*$"
    r"|where\W*$|who\W*$)\b",
    re.IGNORECASE,
)
_FRONT = re.compile(r"^\W*(?:(?:and|but|or|so|also|then|what about|how about|in that case)\b[\s,]*)+", re.IGNORECASE)
_EMPTY_HERE = frozenset(
    content_words("why how come else about more tell explain really ok okay yes no thanks please so then and")
)


def leaning(turn: str) -> float:
    """How much a turn needs what was said before: 0 (not at all) to 2.5."""
    words = len(set(content_words(turn)))
    short = 1.0 if words <= 3 else 0.5 if words <= 5 else 0.0
    return bool(_POINTING.search(turn)) + short + 0.5 * bool(_THEREFORE.search(turn))


def _told(turns: Sequence[str], now_ms: int) -> str:
    """The last of some questions; where it names no subject, or points to one, completed by those before it."""
    whole = ""
    for turn in turns:
        leans = bool(_POINTING.search(turn)) or not understand(turn, now_ms).subject
        whole = _completed(turn, whole, now_ms) if whole and leans and leaning(turn) >= LEANING else turn
    return whole[:_QUESTION_CHARS]


def _completed(question: str, asked: str, now_ms: int) -> str:
    """The question with what it leaves out: the one before it for "and in payments?", otherwise its subject; and its time,
    where the question names none of its own."""
    now, then = understand(question, now_ms), understand(asked, now_ms)
    timed = now.period is not None or now.event is not None
    told = then.words or asked
    if _THEREFORE.search(question) and len(now.subject) <= 3:
        rest = _FRONT.sub("", question).strip().rstrip("?")
        told = told.rstrip("?.! ")
        whole = f"{told} {rest}?" if rest else f"{told}?"
    else:
        known = set(content_words(question))
        more = [w for w in then.matter if not set(content_words(w)) <= known][:_SUBJECT_WORDS]
        whole = f"{question} ({' '.join(more)})" if more else question
    if not timed and (phrase := _time_of(asked, now_ms)):
        whole = f"{whole.rstrip('?')} {phrase}?"
    return whole


def _time_of(asked: str, now_ms: int) -> str:
    """The words of a question that name its time or its event."""
    read = understand(asked, now_ms)
    if read.event is not None:
        return read.event.phrase
    return "" if read.period is None else read.period.phrase


_MARKS = re.compile(r"\s?\[\d+\]|`+")


def _plain(answer: str) -> str:
    """An answer's words without its marks and code spans."""
    return " ".join(_MARKS.sub("", answer).split())
