"""What detectors are worth: alerts on series of numbers, and thirty days of the demo shop with incidents, on a budget.

`nab(data)` needs the folder of evaluation data; `alert_budget(seed)` makes its own. Both return metrics by name.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

import orjson

from headwater.config import IngestSettings, TopicConfig
from headwater.demo.month import Month, month
from headwater.detect.budget import Incident
from headwater.detect.judging import TopicJudge
from headwater.detect.numeric import Alarm
from headwater.detect.seen import MINUTE_MS, Item
from headwater.intake.drafts import drafts as intake
from headwater.lines.reading import LineReader
from headwater.log.store import Row
from headwater.passages import Mapper
from headwater.records import to_ms
from headwater.records.anomalies import KINDS
from headwater.records.levels import is_bad

FOUND_WITHIN = 5  # minutes
_BLOCK = 2000


def scorer(data: Path) -> ModuleType:
    """The scorers that lie beside the evaluation data."""
    spec = importlib.util.spec_from_file_location("score", data / "score.py")
    if spec is None or spec.loader is None:
        raise FileNotFoundError(f"no score.py in {data}")
    module = importlib.util.module_from_spec(spec)
    sys.modules["score"] = module
    spec.loader.exec_module(module)
    return module


def nab(data: Path) -> dict[str, float]:
    """Alerts on the NAB series, one configuration, each value judged before the next is read."""
    score = scorer(data)
    series = score.load_series(data)
    began = time.perf_counter()
    alerts = {}
    for one in series:
        alarm = Alarm()
        alerts[one.name] = [alarm.alerts(value) for value in one.values]
    took = time.perf_counter() - began
    found = score.windowed_f1(series, alerts)
    values = sum(len(one.values) for one in series)
    return {
        "nab_f1_guarded": found["f1_guarded"], "nab_f1": found["f1"], "nab_windows_found": found["tp"],
        "nab_false_alerts": found["fp_guarded"], "nab_values_per_s": values / took,
    }  # fmt: skip


def items(plan: Month) -> Iterator[list[Item]]:
    """The records of a month as detectors get them: read, cut into passages, templates that generalise resolved; the
    aliases of a block come before it as an item of its own (see `aliases`)."""
    config, limits = TopicConfig(passages="template"), IngestSettings()
    reader, seq = LineReader(lambda: 0, max_attributes=limits.max_attributes), 0
    mapper = Mapper("template", config, limits, clock_ms=lambda: 0)
    ids: dict[str, int] = {}
    block: list[object] = []

    def judged() -> list[Item]:
        nonlocal seq
        rows = []
        for draft in intake(block, config, reader, limits, now_ms=0):  # type: ignore[arg-type]
            attributes = orjson.dumps(dict(draft.attributes)) if draft.attributes else None
            assert draft.time_ms is not None
            rows.append(Row(seq, 0, seq, draft.time_ms, 0, draft.key, draft.value, attributes, draft.body))
            seq += 1
        batch = mapper.batch(rows)
        for old, new in batch.generalised:
            if old in ids:
                ids[new] = ids.setdefault(new, ids[old])
        of = {piece.record: (ids.setdefault(piece.text, len(ids) + 1), piece.level) for piece in batch.pieces}
        return [Item(r.id, r.time_ms, r.key, (of[r.id][0],), is_bad(of[r.id][1]), r.attributes) for r in rows if r.id in of]

    for draft in plan.drafts():
        block.append(draft)
        if len(block) == _BLOCK:
            yield judged()
            block = []
    yield judged()


def alerts_of(plan: Month, *, per_day: float = 3.0) -> list[Incident]:
    """The alerts of a month."""
    judge = TopicJudge(per_day=per_day, sensitivity="medium", kinds=KINDS)
    raised: dict[int, Incident] = {}
    for block in items(plan):
        for incident in judge.feed(block):
            raised[incident.n] = incident
    return [incident for incident in raised.values() if incident.alerted]


def judge_alerts(plan: Month, alerts: Sequence[Incident]) -> dict[str, float]:
    """How many incidents were found in time, how many alerts were right, and the most in 24 hours."""
    begin = to_ms(plan.start)
    minutes = sorted((alert.opened_ms - begin) / MINUTE_MS for alert in alerts)
    found = [t for t in plan.troubles if any(t.start <= at <= t.start + FOUND_WITHIN for at in minutes)]
    late = [t for t in plan.troubles if t not in found and any(t.start <= at <= t.end for at in minutes)]
    right = [at for at in minutes if any(t.start <= at <= t.end + 5 for t in plan.troubles)]
    busiest = max((sum(at <= other < at + 1440 for other in minutes) for at in minutes), default=0)
    return {
        "found_in_5_min": len(found), "found_later": len(late), "incidents": len(plan.troubles), "alerts": len(minutes),
        "precision": len(right) / max(len(minutes), 1), "most_alerts_a_day": busiest,
    }  # fmt: skip


def alert_budget(seeds: Sequence[int]) -> dict[str, float]:
    """The worst of some months: alerts within the budget must find the incidents and cry wolf seldom."""
    results = [judge_alerts(plan, alerts_of(plan)) for plan in (month(seed=seed) for seed in seeds)]
    return {
        "alert_budget_found_least": min(r["found_in_5_min"] for r in results),
        "alert_budget_found_mean": sum(r["found_in_5_min"] for r in results) / len(results),
        "alert_budget_precision_least": min(r["precision"] for r in results),
        "alert_budget_alerts_a_day_most": max(r["most_alerts_a_day"] for r in results),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--seeds", type=int, nargs="*", default=[1])
    parser.add_argument("--days", type=int, default=30)
    given = parser.parse_args()
    if given.data is not None:
        print(nab(given.data))
    for seed in given.seeds:
        plan = month(seed=seed, days=given.days, incidents=max(given.days // 3, 1))
        began = time.perf_counter()
        alerts = alerts_of(plan)
        print(seed, judge_alerts(plan, alerts), f"{time.perf_counter() - began:.0f} s")
        begin = to_ms(plan.start)
        for trouble in plan.troubles:
            own = [a for a in alerts if trouble.start <= (a.opened_ms - begin) / MINUTE_MS <= trouble.end + 5]
            at = f"{(own[0].opened_ms - begin) / MINUTE_MS - trouble.start:.0f} min" if own else "missed"
            print(f"  {trouble.start // 1440}d {trouble.start % 1440 // 60:02}h {trouble.kind} {trouble.service}: {at}")
        for alert in alerts:
            minute = (alert.opened_ms - begin) // MINUTE_MS
            if not any(t.start <= minute <= t.end + 5 for t in plan.troubles):
                top = [(s.family, s.subject, s.observed, s.expected, round(d, 1)) for s, d in alert.signals[:4]]
                print(f"  wolf {minute // 1440}d {minute % 1440 // 60:02}h{minute % 60:02} {alert.by_chance_days:.0f}d {top}")


if __name__ == "__main__":
    main()
