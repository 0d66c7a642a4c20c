"""Charts for notebooks, with altair (the extra `plots`): when records were, and how a topic's patterns lie by meaning."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from headwater.errors import UsageError
from headwater.records import Pattern, SearchReply, Timeline
from headwater.visible import visible

if TYPE_CHECKING:
    import numpy as np

_CHARS = 160
_BUCKETS = 60
_WIDE, _HIGH = 640, 180


def timeline(reply: Timeline | SearchReply) -> Any:
    """An altair.Chart of counts over time, coloured by topic: of a timeline's buckets, or of the hits of a search."""
    rows = _buckets(reply) if isinstance(reply, Timeline) else _hits(reply)
    alt = _altair()
    return (
        alt.Chart(alt.Data(values=rows))
        .mark_bar()
        .encode(
            x=alt.X("start:T", title="time (UTC)"),
            y=alt.Y("count:Q", title="records"),
            color="topic:N",
            tooltip=["start:T", "topic:N", "count:Q"],
        )
        .properties(width=_WIDE, height=_HIGH)
    )


def embedding_map(patterns: Sequence[Pattern], vectors: Sequence[Sequence[float]]) -> Any:
    """An altair.Chart of patterns as points whose nearness is likeness in meaning (`project`); a point's size is its count, its
    colour its level. `vectors` are those of the patterns' texts, in their order; UsageError for fewer than three."""
    alt = _altair()
    points = project(vectors)
    rows = [
        {
            "x": float(x), "y": float(y), "count": p.count, "level": p.level or "none", "new": p.new,
            "pattern": visible(p.passage.text[:_CHARS], newlines="mark"), "example": p.example,
        }
        for p, (x, y) in zip(patterns, points, strict=True)
    ]  # fmt: skip
    axis = alt.Axis(labels=False, ticks=False, grid=False)
    return (
        alt.Chart(alt.Data(values=rows))
        .mark_circle(opacity=0.7)
        .encode(
            x=alt.X("x:Q", axis=axis, title=None),
            y=alt.Y("y:Q", axis=axis, title=None),
            size=alt.Size("count:Q", scale=alt.Scale(type="log")),
            color="level:N",
            tooltip=["pattern:N", "count:Q", "level:N", "example:N"],
        )
        .properties(width=_WIDE, height=_WIDE * 2 // 3)
        .interactive()
    )


def project(vectors: Sequence[Sequence[float]]) -> np.ndarray:
    """`(n, 2)` float64: the first two principal components of `(n, d)` vectors, each axis so turned that its largest value is
    positive. UsageError for fewer than three."""
    import numpy as np

    points = np.asarray(vectors, np.float64)
    if points.ndim != 2 or len(points) < 3:
        raise UsageError("a map needs at least three patterns")
    centred = points - points.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    plane = np.zeros((len(points), 2))
    placed = centred @ axes[:2].T
    plane[:, : placed.shape[1]] = placed
    largest = plane[np.abs(plane).argmax(axis=0), [0, 1]]
    return plane * np.where(largest < 0, -1.0, 1.0)


def _buckets(reply: Timeline) -> list[dict[str, Any]]:
    return [
        {"start": bucket.start.isoformat(), "topic": topic, "count": count}
        for bucket in reply.buckets
        for topic, count in bucket.topics.items()
    ]


def _hits(reply: SearchReply) -> list[dict[str, Any]]:
    """The hits' counts, in at most `_BUCKETS` stretches of time."""
    if not len(reply):
        return []
    first, last = min(h.timestamp for h in reply), max(h.timestamp for h in reply)
    step = max((last - first) / _BUCKETS, (last - first).resolution)
    found = Counter((first + step * int((h.timestamp - first) / step), h.topic) for h in reply)
    return [{"start": start.isoformat(), "topic": topic, "count": count} for (start, topic), count in sorted(found.items())]


def _altair() -> Any:
    try:
        return importlib.import_module("altair")
    except ImportError as error:
        raise UsageError("plots need altair, which is not installed; `pip install 'headwater[plots]'`") from error
