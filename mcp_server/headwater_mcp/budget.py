"""How a reply is kept within what the caller allowed; what text costs a model says headwater.budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from headwater.budget import clip, tokens

__all__ = ["Item", "clip", "fit", "tokens"]


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
