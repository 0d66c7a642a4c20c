"""How far an index is, and how two models compare: for `headwater index`."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from headwater.cli import output

if TYPE_CHECKING:
    from headwater.blocking import Headwater
    from headwater.records import IndexInfo
    from headwater.records.indexes import Found, Progress, Shadow

_LOOK_S = 0.3
_SAY_S = 10.0  # between two lines where there is no terminal


def line(progress: Progress) -> str:
    """`12,000 of 50,000 passages embedded, 310/s, 2 min left`."""
    what = "records read again" if progress.work == "keywords" else "passages embedded"
    if progress.work == "segments":
        what = "segments built"
    parts = [f"{progress.done:,} of {progress.total:,} {what}"]
    if progress.rate:
        parts.append(f"{progress.rate:,.0f}/s")
    if progress.eta_s is not None:
        parts.append(f"{_span(progress.eta_s)} left")
    return ", ".join(parts)


def shadow_line(shadow: Shadow) -> str:
    """The second model in one line."""
    parts = [f"{shadow.model}, {shadow.state}"]
    if shadow.state == "building":
        parts.append(line(shadow.progress))
    elif shadow.comparison is not None:
        parts.append(f"overlap@10 {shadow.comparison.overlap:.2f}")
    if shadow.error is not None:
        parts.append(output.line_of(shadow.error))
    return "; ".join(parts)


def follow(verbs: Headwater, name: str) -> IndexInfo:
    """Show how far an index is until it, or the second model beside it, is complete. An interrupt only ends the watching.

    What is stalled is waited for as well: it is tried again by itself."""
    said = 0.0
    while True:
        info = verbs.index(name)
        shadow = info.shadow
        building = shadow is not None and shadow.state == "building"
        if info.state in ("ready", "off", "damaged") and not building:
            _clear()
            return info
        now = shadow_line(shadow) if shadow is not None and building else _state(info)
        if sys.stderr.isatty():
            sys.stderr.write(f"\r\x1b[K{output.clip(f'{name}: {now}', output.width() or 100)}")
            sys.stderr.flush()
        elif time.monotonic() - said > _SAY_S:
            said = time.monotonic()
            output.say(f"{name}: {now}")
        time.sleep(_LOOK_S)


def _state(info: IndexInfo) -> str:
    parts = [info.state if info.error is None else f"{info.state}: {output.line_of(info.error)}"]
    return "; ".join([*parts, line(info.progress)] if info.progress is not None else parts)


def _clear() -> None:
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()


def show_shadow(shadow: Shadow, json: bool, explain: bool) -> None:
    """A second model, and with `explain` both models' answers to the queries where they agree least."""
    if json:
        output.show_json(shadow)
        return
    rule = "when told" if shadow.threshold is None else f"by itself at an overlap@10 of {shadow.threshold:g}"
    facts = {
        "topic": shadow.topic,
        "answers": shadow.live,
        "second": f"{shadow.model}, {shadow.state} since {output.when(shadow.changed)}",
        "progress": line(shadow.progress),
        "takes over": rule if shadow.state != "former" else "",
        "kept until": "" if shadow.kept_until is None else output.when(shadow.kept_until),
        "error": "" if shadow.error is None else output.line_of(shadow.error),
    }
    compared = shadow.comparison
    if compared is not None:
        source = "that people asked" if compared.source == "recorded" else "made of the topic's own passages"
        facts["overlap@10"] = f"{compared.overlap:.3f} over {compared.queries:,} queries {source}"
        facts["overlap@10"] += f"; {compared.overlap_low:.3f} in the tenth where they agree least"
        for side, model in (("live", "the live one"), ("shadow", "the other")):
            ms = compared.latency_ms.get(side, {})
            texts = [f"{part} {ms.get(f'{part}_p50', 0):.1f} / {ms.get(f'{part}_p99', 0):.1f}" for part in ("embed", "search")]
            facts[f"ms {side}"] = f"p50 / p99 of {model} at the comparison: {', '.join(texts)}"
    for name, value in facts.items():
        if value:
            output.out(f"{name:<10}  {value}")
    if compared is not None:
        output.note("overlap says how alike the models answer, not which is better: look at both with --explain")
        for sample in compared.samples if explain else ():
            output.out()
            output.out(output.style(f"{output.line_of(sample.query)}  (overlap {sample.overlap:.1f})", "bold"))
            _list("live", sample.live)
            _list("second", sample.shadow)


def _list(side: str, found: tuple[Found, ...]) -> None:
    room = output.width()
    output.out(output.style(f"  {side}", "cyan"))
    for place, one in enumerate(found, 1):
        other = f"({one.other_rank})" if one.other_rank is not None else "(-)"
        head = f"  {place:>3} {other:>5} {one.score:.3f}  "
        output.out(head + output.line_of(one.text, None if room is None else max(room - len(head), 20)))


def _span(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
