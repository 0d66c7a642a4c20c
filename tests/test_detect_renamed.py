"""Keys that each deploy names anew are not missed; what does not come back under any name is."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from headwater.detect.judging import TopicJudge
from headwater.detect.season import Season
from headwater.detect.seen import MINUTE_MS, Item, Seen
from headwater.detect.silence import Silence
from headwater.detect.succession import Begun, Ended, succeeded
from headwater.records.anomalies import KINDS

MONDAY = 29_540_160  # a minute of the epoch: Monday, 2026-03-02, 00:00
OLD = ("shop-6c5d-aaxk", "shop-6c5d-qqzp", "shop-6c5d-mm2t")
NEW = ("shop-9f01-bbwr", "shop-9f01-kkcv", "shop-9f01-zzyl")


def missed(after: Sequence[Sequence[str]], *, before: Sequence[str] = OLD) -> list[Seen]:
    """What is missed, clearly, once the keys that spoke for ten hours give way to others: `after` has those of each minute."""
    silence, season, found = Silence(), Season(), list[Seen]()
    for at in range(600 + len(after)):
        keys = before if at < 600 else after[at - 600]
        season.learn(at, 4 * len(before))
        seen = silence.close(MONDAY + at, dict.fromkeys(keys, (4, at)), season, learn=True)
        found += [one for one in seen if one.score > 5]
    return found


def test_instances_that_a_deploy_names_anew_are_not_missed() -> None:
    rolling = [(*NEW[: 1 + at // 3], *OLD[1 + at // 3 :]) for at in range(9)]
    assert not missed([*rolling, *[NEW] * 400])
    assert not missed([[*NEW, *OLD]] * 20 + [NEW] * 400)  # both for a while
    assert not missed([NEW[:2]] * 120)  # fewer than before


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (("i-0a61f", "i-0b72e"), ("i-0c93d", "i-04d1c")),
        (("3f9a01c2", "77b1e0d4"), ("e01c44ab", "9d2f07b3")),
        (("web01",), ("web02",)),
    ],
)
def test_instances_are_related_by_leading_words_or_by_shape(before: tuple[str, ...], after: tuple[str, ...]) -> None:
    assert not missed([after] * 60, before=before)


def test_what_does_not_come_back_under_any_name_is_missed() -> None:
    assert {one.subject for one in missed([()] * 10)} == {f"key:{key}" for key in OLD}
    assert {one.subject for one in missed([OLD[:2]] * 10)} == {f"key:{OLD[2]}"}
    assert {one.subject for one in missed([OLD[:2]] * 5 + [(*OLD[:2], "cart-9f01-bbwr")] * 30)} == {f"key:{OLD[2]}"}


def test_new_instances_that_only_start_are_no_successors() -> None:
    assert {one.subject for one in missed([NEW] + [()] * 20)} == {f"key:{key}" for key in OLD}


def test_a_service_that_falls_silent_while_another_is_deployed_is_missed() -> None:
    both = (*OLD, "cart-41aa-xx1k")
    assert {one.subject for one in missed([NEW] * 30, before=both)} == {"key:cart-41aa-xx1k"}


def test_the_nearest_relatives_are_the_ones_replaced() -> None:
    ended = [Ended("order-worker-7d9f", 100, 30.0), Ended("order-api-84c1", 100, 30.0)]
    assert succeeded(ended, [Begun("order-api-1b2c", 101, 31)]) == {"order-api-84c1"}
    assert succeeded(ended, [Begun("order-api-1b2c", 60, 31)]) == set()  # it was there long before
    assert succeeded([], [Begun("order-api-1b2c", 101, 31)]) == set()


def test_days_with_a_deploy_each_alert_nobody() -> None:
    rng, judge, alerts = random.Random(3), TopicJudge(per_day=3.0, sensitivity="medium", kinds=KINDS), set[int]()
    pods: list[str] = []
    for minute in range(5 * 1440):
        if minute % 1500 == 0:
            pods = [f"shop-{rng.getrandbits(16):04x}-{rng.getrandbits(20):05x}" for _ in range(3)]
        made = [Item(minute, (MONDAY + minute) * MINUTE_MS, pod, (rng.randrange(1, 4),), False, None) for pod in pods * 2]
        alerts |= {incident.n for incident in judge.feed(made) if incident.alerted}
    assert not alerts
