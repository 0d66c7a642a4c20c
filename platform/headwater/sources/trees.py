"""A file of JSON as other programs write it (a list, pages of lists, an object around them) -> its objects, one by one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from headwater.records.naming import roles
from headwater.sources.exports import json_items

_DEEPEST = 4  # objects around the list: an answer's `data`, its `repository`, its `issues`


def elements(text: str) -> Iterator[Any]:
    """The elements of the lists in `text`, however nested, and what stands beside lists. An object that is none itself (it has
    neither text nor key) gives the elements of the one list of objects in it. Raises BadLine, behind what could be read."""
    for value, _ in json_items(text):
        stack = [_listed(value) or value if isinstance(value, dict) else value]
        while stack:
            item = stack.pop()
            if isinstance(item, list):
                stack.extend(reversed(item))
            else:
                yield item


def _listed(tree: dict[str, Any]) -> list[Any] | None:
    """The one list of objects in an object, at the least depth that has any; None where there is none, or several."""
    named = roles(tree)
    if any(isinstance(tree[name], str) and tree[name] for name in (*named.values, *named.keys)):
        return None
    level = [tree]
    for _ in range(_DEEPEST):
        values = [value for part in level for value in part.values()]
        lists = [v for v in values if isinstance(v, list) and v and all(isinstance(e, dict) for e in v)]
        if lists:
            return lists[0] if len(lists) == 1 else None
        level = [value for value in values if isinstance(value, dict)]
    return None
