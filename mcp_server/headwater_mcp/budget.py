"""What text costs a model, and how a reply is kept within what the caller allowed.

The estimate errs on the dear side for the tokenizers of the large model families: logs are full of digits, ids and
punctuation, where the usual "four bytes a token" promises twice the room there is.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_RUN = re.compile(r"[A-Za-z0-9]+|[ \t\r\n]+|[^\x00-\x7f]+|[\x00-\x7f]")
_PIECE = re.compile(r"[A-Z]?[a-z]+|[A-Z]+|[0-9]+")
_MARGIN = 1.05
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


@dataclass(frozen=True, slots=True)
class Item:
    """One entry of a reply: `block(n)` is its text with at most `n` tokens of record text in it, and a little around."""

    block: Callable[[int], str]
    most: int  # tokens of record text worth showing


def fit(head: str, items: Sequence[Item], foot: Callable[[int], str], max_tokens: int) -> str:
    """`head`, as many items in order as there is room for, and `foot(shown)`: within `max_tokens` where head and foot are.

    Items share the room, so that many long ones are shown shortened rather than few of them whole; the first is cut
    further where it must be.
    """
    room = max_tokens - tokens(head) - max(tokens(foot(shown)) for shown in (0, max(0, len(items) - 1), len(items))) - 4
    share = max(40, room // max(1, len(items)) - 40)
    blocks: list[str] = []
    for item in items:
        block = item.block(min(item.most, share))
        if (cost := tokens(block) + 1) > room and not blocks:
            block = _shrunk(item, room)
            cost = tokens(block) + 1
        if cost > room:
            break
        blocks.append(block)
        room -= cost
    return "\n".join(part for part in (head, *blocks, foot(len(blocks))) if part)


def _shrunk(item: Item, room: int) -> str:
    """The item with as much text as fits into `room`."""
    allowed = room
    while allowed > 0:
        block = item.block(allowed)
        if (over := tokens(block) + 1 - room) <= 0:
            return block
        allowed -= max(over, allowed // 16, 1)
    return item.block(0)
