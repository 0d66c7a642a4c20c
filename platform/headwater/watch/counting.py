"""Whether one more record makes too many within a while, by the times that records tell, in whatever order they come.

Records come late, several streams are watched as one, and some clocks are wrong by hours or years. So the newest times are not
what counts: each record is judged by what lies around its own time, and of the records only the last that came are kept.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right

from headwater.log.watches import State

_LEAST_KEPT = 100  # times, so that a few late or early ones drive out nothing
_SPANS = 8  # crossings that are remembered, so that streams of several clocks each have their own


def crosses(state: State, time_ms: int, more_than: int, within_ms: int) -> bool:
    """Take in a record's time, and say whether with it more than so many lie within so long for the first time. As long as
    that lasts, and until a later record shows that there were fewer in between, it is the same crossing."""
    state.window.append(time_ms)
    del state.window[: -max(2 * (more_than + 1), _LEAST_KEPT)]
    if not _too_many(state.window, time_ms, more_than, within_ms):
        state.crossed = [span for span in state.crossed if not span[1] < time_ms <= span[1] + within_ms]
        return False
    for span in state.crossed:
        if span[0] - within_ms <= time_ms <= span[1] + within_ms:
            span[:] = min(span[0], time_ms), max(span[1], time_ms)
            return False
    state.crossed = [*state.crossed, [time_ms, time_ms]][-_SPANS:]
    return True


def _too_many(times: list[int], time_ms: int, more_than: int, within_ms: int) -> bool:
    """Whether some stretch of that length with this time in it has more times than that."""
    times = sorted(times)
    first, end = bisect_left(times, time_ms - within_ms), bisect_right(times, time_ms + within_ms)
    near = times[first:end]
    return any(high - low <= within_ms for low, high in zip(near, near[more_than:], strict=False))
