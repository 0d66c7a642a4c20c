"""Replies about anomalies and labels, as compact text for a model."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from headwater.records import SourceInfo
from headwater.records.anomalies import AnomaliesReply, Anomaly
from headwater.records.labels import Classified, ClassifyReply, LabelCount, Pipeline
from headwater_mcp.budget import Item, clip
from headwater_mcp.render import Fence, Page, counted, framed, instant, one_line, span

_ADDRESSES = 4
_LABEL = 40
_TEXT = 30
_NONE = "No anomaly in this window. Widen since, or set quiet for those that did not alert."
_OFF = (
    "No detectors are on, so nothing was looked for: no sign that all is well. Use patterns with new_since, and timeline; "
    "the user can run `headwater anomaly enable TOPIC`."
)


def anomalies(reply: AnomaliesReply, page: Page) -> str:
    """Anomalies, newest first: when, how odd, what, which records show it."""
    fence = page.fence()
    entries = reply.anomalies[page.skip :]
    items = [Item(partial(_anomaly_block, fence, page, found), page.shown) for found in entries]
    hint = "" if reply.anomalies else _NONE if reply.coverage.topics else _OFF
    head = f"{counted(len(reply.anomalies), 'anomaly').replace('anomalys', 'anomalies')}"
    return framed(fence, head, items, page, len(reply.anomalies), reply.coverage, hint)


def classified(reply: ClassifyReply, texts: Sequence[str], page: Page) -> str:
    """The label of each text, or of the records of topics how many have which."""
    fence = page.fence()
    if texts:
        head = f"classify: {counted(len(reply.results), 'text')} by {reply.method}"
        lines = [partial(_text_line, fence, n + page.skip + 1, one) for n, one in enumerate(zip(
            reply.results[page.skip :], texts[page.skip :], strict=True))]  # fmt: skip
        total = len(reply.results)
    else:
        head = f"classify: {reply.records} records in {counted(reply.passages, 'pattern')} by {reply.method}"
        lines = [partial(_count_line, fence, count) for count in reply.labels[page.skip :]]
        total = len(reply.labels)
    head += "".join(f"\nnote: {clip(one_line(note), 60)}" for note in reply.notes[:3])
    items = [Item(line, _TEXT) for line in lines]
    return framed(fence, head, items, page, total, None, "" if total else "Nothing to classify in this scope.")


def enriching(made: Pipeline) -> str:
    """A new pipeline, and where to look for what it writes."""
    held = f" Held up: {one_line(made.error)[:200]}" if made.error else ""
    return f"pipeline {made.name} ({made.state}) writes to {made.output}: search there, or patterns, in a while.{held}"


def ingesting(told: Sequence[SourceInfo]) -> str:
    """What is being loaded, and where to look for it."""
    lines = [f"loading into {source.topic} ({source.state}, {source.records} records so far)" for source in told[:10]]
    return "\n".join([*lines, "Its records are found within seconds; status shows how far it is."])


def _anomaly_block(fence: Fence, page: Page, found: Anomaly, limit: int) -> str:
    odd = f"once in {found.by_chance_days:.3g} days by chance"
    quiet = "" if found.alerted else f", quiet{f' ({one_line(found.why_quiet)[:60]})' if found.why_quiet else ''}"
    times = instant(found.start) if found.start == found.end else span(found.start, found.end)
    head = f"[{found.id}] {found.severity} {found.kind} in {found.topic} {times}, {odd}{quiet}"
    if found.observed is not None and found.expected is not None:
        head += f", {found.observed:.4g} {one_line(found.unit)[:20]} where {found.expected:.4g} is usual"
    lines = [f"{head} {fence(clip(one_line(fence.redact(found.what)), max(20, limit)))}"]
    if found.addresses:
        more = len(found.addresses) - _ADDRESSES
        lines.append(f"  records: {' '.join(found.addresses[:_ADDRESSES])}" + (f" +{more}" if more > 0 else ""))
    if page.detailed:
        lines += [
            f"  {signal.kind} {instant(signal.at)} {fence(clip(one_line(fence.redact(signal.what)), 60))}"
            for signal in found.signals[:4]
        ]
        lines += [f"  normal: x{one.count} {fence(clip(one_line(fence.redact(one.text)), 60))}" for one in found.normal[:2]]
    return "\n".join(lines)


def _text_line(fence: Fence, n: int, one: tuple[Classified, str], limit: int) -> str:
    result, text = one
    label = "no label" if result.label is None else fence(clip(one_line(result.label), _LABEL))
    return f"[{n}] {label} {result.confidence:.2f} {fence(clip(one_line(fence.redact(text[: limit * 8])), limit))}"


def _count_line(fence: Fence, count: LabelCount, _: int) -> str:
    label = "no label" if count.label is None else fence(clip(one_line(count.label), _LABEL))
    example = f" e.g. {count.example}" if count.example else ""
    return f"{label} {count.records} records, {counted(count.passages, 'pattern')}{example}"
