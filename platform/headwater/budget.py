"""What text costs a model, how it is cut to a budget of tokens, and which hits say the same.

The estimate errs on the dear side for the tokenizers of the large model families: logs are full of digits, ids and
punctuation, where the usual "four bytes a token" promises twice the room there is.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from headwater.records import Hit

_RUN = re.compile(r"[A-Za-z0-9]+|[ \t\r\n]+|[^\x00-\x7f]+|[\x00-\x7f]")
_PIECE = re.compile(r"[A-Z]?[a-z]+|[A-Z]+|[0-9]+")
_MARGIN = 1.05
_WORD = re.compile(r"[\w.:/-]+")
_DIGIT = re.compile(r"\d")
_WORDY = re.compile(r"[^\W\d_]{3}")
_SHAPE = 2000  # characters by which two messages are compared
_MOST_CHARS_PER_TOKEN = 8  # no run costs less, so a text of n tokens ends within 8n characters


def tokens(text: str) -> int:
    """Tokens `text` costs at most, as an estimate; a text of several lines never costs more than the sum of its lines."""
    return math.ceil(_MARGIN * sum(_cost(run[0]) for run in _RUN.finditer(text)))


def clip(text: str, limit: int) -> str:
    """The longest start of `text` within `limit` tokens, ending between two runs of characters where it can."""
    room, end = limit / _MARGIN, 0
    for run in _RUN.finditer(text, 0, max(0, limit) * _MOST_CHARS_PER_TOKEN):
        cost = _cost(run[0])
        if cost > room:
            if cost > 8 and room >= 4:  # a run that is long in itself (an id, another script) may be cut inside
                kept = run[0][: int(len(run[0]) * (room - 1) / cost)]
                while kept and _cost(kept) > room:
                    kept = kept[: len(kept) * 3 // 4]
                end += len(kept)
            break
        room -= cost
        end = run.end()
    return text[:end]


def _cost(run: str) -> int:
    first, length = run[0], len(run)
    if first > "\x7f":
        size = len(run.encode("utf-8", "replace"))
        return size if max(run) > "\uffff" else math.ceil(0.8 * size)
    if first in " \t\r\n":
        return 0 if run == " " else (length + 1) // 2
    if not first.isalnum():
        return 1
    if run.isalpha() and (run.islower() or run.istitle()):
        return _letters(length, 4)
    if length >= 20 and not run.isalpha() and not run.isdigit():
        return math.ceil(length / 1.35)  # an id, a hash, base64
    return sum(
        (len(piece) + 1) // 2 if piece.isdigit() else _letters(len(piece), 3 if piece.isupper() else 4)
        for piece in _PIECE.findall(run)
    )


def _letters(length: int, per_token: int) -> int:
    return 1 + (length - 1) // per_token if length <= 16 else math.ceil(length / 1.6)


def shape(hit: Hit) -> tuple[str, str]:
    """What hits of one pattern have alike: the topic, and the words whatever the numbers, ids, times and paths."""
    text = hit.passage.text or hit.value
    folded = _WORD.sub(_without_value, text[:_SHAPE])
    return hit.topic, folded if _WORDY.search(folded) else text


def collapsed(hits: Sequence[Hit]) -> list[list[Hit]]:
    """Hits of one pattern together (the same passage, or the same words with other numbers), in the order of the best."""
    groups: dict[tuple[str, str], list[Hit]] = {}
    for hit in hits:
        groups.setdefault(shape(hit), []).append(hit)
    return list(groups.values())


def _without_value(run: re.Match[str]) -> str:
    """0 for a number, id, time or path: what differs between equal messages."""
    return "0" if _DIGIT.search(run[0]) else run[0]
