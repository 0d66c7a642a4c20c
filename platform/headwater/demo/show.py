"""What `headwater demo` does and prints: an incident and this machine's own logs, streamed into a daemon of its own on a
temporary directory, then searched, compared and questioned.

It knows the truth of its incident (headwater.demo.incident) and checks each thing it shows against it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from headwater.cli import output
from headwater.cli.ask import show_grounds
from headwater.cli.mcp import agent_lines, program
from headwater.cli.progress import bar
from headwater.cli.search import show_hit, show_patterns
from headwater.cli.topics import lag, show_topics
from headwater.demo import incident
from headwater.errors import HeadwaterError, WaitTimeout
from headwater.launch import LOG

if TYPE_CHECKING:
    from headwater.blocking import Headwater
    from headwater.launch import Runtime
    from headwater.records import Answer, Hit, PatternsReply, SearchReply

MACHINE, DOCS = "machine", "docs"
TOP_K = 5
_IN_FULL = (1, 2, 3)  # of the questions
_HIT_CHARS, _PATTERN_CHARS = 220, 140
_STORY_STEP_S = 120.0  # of the story in one append of each topic
_LARGEST_LOG_BYTES, _ALL_LOGS_BYTES = 4 << 20, 16 << 20
_START_S, _SEARCHABLE_S, _STOP_S = 120.0, 180.0, 15.0


@dataclass(slots=True)
class Checks:
    """What had to be true, and whether it was."""

    passed: int = 0
    failed: list[str] = field(default_factory=list)

    def expect(self, holds: bool, what: str) -> bool:
        if holds:
            self.passed += 1
        else:
            self.failed.append(what)
        return holds


def run(*, keep: bool = False, seed: int = 7, lines: int = 6000) -> bool:
    """The whole demo. False when something that must be found was not; HeadwaterError when it cannot run at all. The daemon
    and its directory are gone afterwards, also after Ctrl+C, unless `keep`."""
    from headwater import connect

    begun = time.monotonic()
    checks = Checks()
    with _daemon(keep) as (runtime, directory):
        output.say(f"a daemon of its own at {runtime.url}, data in {directory}")
        with connect(runtime.url, runtime.token) as verbs:
            start = incident.start_before(datetime.now(UTC))
            verbs.create_topic("logs")
            verbs.set_detecting("logs", budget="3/day")
            _stream(verbs, start, seed, lines)
            machine = _own_logs(verbs)
            _wait_until_searchable(verbs)
            _topics(verbs)
            _searches(verbs, checks)
            _new_patterns(verbs, start, checks)
            _tells_the_story(verbs, checks, start, seed, lines)
            _answers(verbs, checks)
            _own_searches(verbs, machine, checks)
            _wakes(verbs, checks)
            _finds_what_is_odd(verbs, checks, start)
        _connect(runtime, directory, keep)
        return _verdict(checks, time.monotonic() - begun)


# ---------------------------------------------------------------------- the daemon


@contextlib.contextmanager
def _daemon(keep: bool) -> Iterator[tuple[Runtime, Path]]:
    """A daemon on a temporary directory and a free port; both go at the end, unless kept and all went well."""
    from headwater.config import load
    from headwater.launch import find_or_start

    directory = Path(tempfile.mkdtemp(prefix="headwater-demo-"))
    settings = load(None, {"data_dir": str(directory), "server.port": 0, "server.host": "127.0.0.1"}).settings
    runtime: Runtime | None = None
    kept = False
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        runtime = find_or_start(settings, timeout_s=_START_S)
        yield runtime, directory
        kept = keep
    except HeadwaterError:
        _show_log(directory)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
        if not kept:
            if runtime is not None:
                _stop(runtime.pid)
            shutil.rmtree(directory, ignore_errors=True)


def _show_log(directory: Path, most: int = 30) -> None:
    """The last lines the daemon wrote, before its directory goes."""
    with contextlib.suppress(OSError):
        lines = (directory / LOG).read_text("utf-8", "replace").splitlines()
        for line in lines[-most:]:
            output.say(f"daemon: {output.line_of(line)}")


def _stop(pid: int) -> None:
    """End a daemon in good order; after a while without regard to order."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        end = time.monotonic() + _STOP_S
        while time.monotonic() < end:
            if _gone(pid):
                return
            time.sleep(0.02)


def _gone(pid: int) -> bool:
    """Whether a process has ended, a child of this one or another's."""
    try:
        if os.waitpid(pid, os.WNOHANG)[0] == pid:
            return True
    except ChildProcessError:
        pass
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


# ---------------------------------------------------------------------- records in


def _stream(verbs: Headwater, start: datetime, seed: int, lines: int) -> None:
    """The incident, in the order and the batches in which it happened, as fast as it is stored."""
    begun, stored = time.monotonic(), 0
    batches = list(incident.stream(start, seed=seed, lines=lines, batch_s=_STORY_STEP_S))
    with bar(len(batches), "the incident", unit_bytes=False) as step:
        for done, batch in enumerate(batches, 1):
            for topic in incident.TOPICS:
                drafts = [draft for name, draft in batch.entries if name == topic]
                if drafts:
                    verbs.append(topic, drafts, idempotency_key=f"demo-{seed}-{topic}-{batch.after_s}")
                    stored += len(drafts)
            step(done, stored, f"the incident, {datetime.fromtimestamp(start.timestamp() + batch.after_s, UTC):%H:%M}")
    elapsed = time.monotonic() - begun
    output.say(f"streamed {stored:,} records of a self-made incident, two hours of a shop's life, in {elapsed:.1f} s")


def _own_logs(verbs: Headwater) -> tuple[str, ...]:
    """This machine's readable logs, and the project's documents where it runs from a checkout. The topics that got records."""
    filled = []
    for topic, paths, whose in (
        (MACHINE, log_files(), "this machine's own logs"),
        (DOCS, documents(), "the project's documents"),
    ):
        begun = time.monotonic()
        stored = sum(_load(verbs, topic, path) for path in paths)
        if stored:
            names = ", ".join(path.name for path in paths[:6]) + (" ..." if len(paths) > 6 else "")
            output.say(f"loaded {output.plural(stored, 'record')} of {whose} ({names}) in {time.monotonic() - begun:.1f} s")
            filled.append(topic)
        elif topic == MACHINE:
            output.say("this machine has no logs that can be read in /var/log")
    return tuple(filled)


def log_files(folder: Path = Path("/var/log")) -> list[Path]:
    """The logs of a folder that can be read and are not empty, the small first, to a bound in all."""
    found = []
    for path in folder.glob("*.log"):
        with contextlib.suppress(OSError):
            size = path.stat().st_size
            if path.is_file() and os.access(path, os.R_OK) and 0 < size <= _LARGEST_LOG_BYTES:
                found.append((size, path))
    chosen, total = [], 0
    for size, path in sorted(found):
        total += size
        if total <= _ALL_LOGS_BYTES:
            chosen.append(path)
    return chosen


def documents(root: Path = Path(__file__).parents[3]) -> list[Path]:
    """The README and docs of the checkout this runs from; none where it is installed. The tutorial is left out: it tells of
    this very incident, and would answer the questions about it."""
    if not (root / "pyproject.toml").is_file():
        return []
    found = (root / "README.md", *sorted((root / "docs").glob("*.md")))
    return [path for path in found if path.is_file() and path.name != "tutorial.md"]


def _load(verbs: Headwater, topic: str, path: Path) -> int:
    """A file into a topic; how many records. What cannot be read is said and left out."""
    from headwater.cli.load import pieces
    from headwater.sources.files import read

    stored = 0
    try:
        with read(path) as reading:
            for batch in reading:
                for piece in pieces(batch.drafts):
                    verbs.append(topic, piece)
                    stored += len(piece)
    except HeadwaterError as error:
        output.say(f"left out: {output.line_of(str(error))}")
    return stored


def _wait_until_searchable(verbs: Headwater) -> None:
    begun = time.monotonic()
    while behind := sum(lag(topic) for topic in verbs.topics()):
        if time.monotonic() - begun > _SEARCHABLE_S:
            raise WaitTimeout(f"{behind:,} records are still not searchable after {_SEARCHABLE_S:.0f} s")
        time.sleep(0.05)
    output.say(f"all of it searchable by word and by meaning {time.monotonic() - begun:.1f} s later")


# ---------------------------------------------------------------------- what is shown


def _heading(title: str, how: str = "") -> None:
    output.out()
    output.out(output.style(title, "bold"))
    if how:
        output.out(output.style(how, "dim"))


def _topics(verbs: Headwater) -> None:
    topics = verbs.topics()
    _heading("1. Topics: a stream is read once per meaning, not once per line", "$ headwater topics")
    show_topics(topics)
    records, passages = sum(t.records for t in topics), sum(t.passages for t in topics)
    output.out(
        f"{records:,} records are {passages:,} passages: {records / max(passages, 1):.0f} times less to embed and to read."
    )


def _searches(verbs: Headwater, checks: Checks) -> None:
    """Searches in words that their target does not use, beside the same search by keyword."""
    _heading("2. Search by meaning, where words alone do not help")
    by_word = 0
    for finding in incident.FINDINGS:
        begun = time.monotonic()
        reply = verbs.search(finding.q, topics=[finding.topic], top_k=TOP_K)
        elapsed_ms = (time.monotonic() - begun) * 1000
        words = verbs.search(finding.q, topics=[finding.topic], top_k=TOP_K, mode="keyword")
        place, place_by_word = _place(reply, finding), _place(words, finding)
        by_word += place_by_word is not None
        command = f'$ headwater search "{finding.q}" --topics {finding.topic}'
        output.out(output.style(command, "dim") + f"   ({elapsed_ms:.0f} ms)")
        found = checks.expect(place is not None, f'search "{finding.q}" finds "{finding.text}"')
        if place is not None:
            show_hit(reply[place], most=_HIT_CHARS)
        verdict = f"number {place + 1}" if found and place is not None else "NOT FOUND"
        nothing = f"not among {len(words)} hits" if len(words) else "nothing"
        other = nothing if place_by_word is None else f"number {place_by_word + 1}"
        output.out(f"      by meaning and words: {verdict}; by keyword alone: {other}")
    count = len(incident.FINDINGS)
    output.out(f"By keyword alone {by_word} of {count} are found among the first {TOP_K}.")
    checks.expect(by_word < count, "keywords alone find less")


def _place(reply: SearchReply, finding: incident.Finding) -> int | None:
    return next((n for n, hit in enumerate(reply) if _is(hit, finding)), None)


def _is(hit: Hit, finding: incident.Finding) -> bool:
    return hit.topic == finding.topic and finding.text in hit.value


def _new_patterns(verbs: Headwater, start: datetime, checks: Checks) -> None:
    deploy = incident.deploy_at(start)
    command = f"$ headwater patterns logs --new-since {output.when(deploy)}"
    _heading(f"3. What is new since the {deploy:%H:%M} deploy", command)
    begun = time.monotonic()
    reply = verbs.patterns("logs", new_since=deploy, limit=12)
    every = verbs.patterns("logs", new_since=deploy, limit=500)
    elapsed_ms = (time.monotonic() - begun) * 1000
    show_patterns(reply, most=_PATTERN_CHARS)
    total = verbs.topic("logs")
    output.out(
        f"{len(every.patterns):,} of {total.passages:,} patterns are new: that is what to read, instead of {total.records:,} "
        f"lines ({elapsed_ms:.0f} ms)."
    )
    for cause in incident.CAUSES:
        checks.expect(_holds(every, cause), f'"{cause}" is among the patterns new since the deploy')


def _holds(reply: PatternsReply, words: str) -> bool:
    return any(words in pattern.passage.text for pattern in reply.patterns)


def _tells_the_story(verbs: Headwater, checks: Checks, start: datetime, seed: int, lines: int) -> None:
    """The question all this is for, and a strict look at its answer: each cause with the number of its records, and the
    ticket of the same cause with what mended it then."""
    question = incident.story(start)
    _heading("4. The question it is all for")
    begun = time.monotonic()
    answer = verbs.ask(question)
    elapsed_ms = (time.monotonic() - begun) * 1000
    output.out(output.style(f'$ headwater ask "{question}"', "dim") + f"   ({elapsed_ms:.0f} ms)")
    _show(answer)
    new, _, before = answer.text.partition("Seen before:")
    told = [draft.value.splitlines()[0] for topic, draft in incident.incident(start, seed=seed, lines=lines) if topic == "logs"]
    for cause in incident.CAUSES:
        count = sum(cause in line for line in told)
        said = any(cause in line.split("` (")[0] and _counts(line, count) for line in new.splitlines())
        checks.expect(said, f'the story tells of "{cause}" and that it was seen {count} times')
    keys = {c.address: verbs.read(c.address).record.key for c in answer.citations if f"[{c.n}]" in before}
    checks.expect(incident.EARLIER_TICKET in keys.values(), f"the story names the earlier ticket {incident.EARLIER_TICKET}")
    checks.expect(incident.EARLIER_REMEDY in before, f'the story tells how it was mended: "{incident.EARLIER_REMEDY}"')
    checks.expect(not answer.unsupported and all(_stands(verbs, answer)), "every sentence of the story is cited and verified")


def _counts(line: str, count: int) -> bool:
    """Whether a line of an answer says that something was seen this often."""
    return f" {count:,} times, " in line if count > 1 else " times, " not in line


def _show(answer: Answer) -> None:
    for line in answer.text.splitlines():
        output.out(textwrap.fill(output.line_of(line), 116, initial_indent="  ", subsequent_indent="    "))
    show_grounds(answer)


def _answers(verbs: Headwater, checks: Checks) -> None:
    """Some questions in full, all of them checked: the first thing said has the facts, each quote stands in its record."""
    _heading("5. Questions, answered from the records; every quote is checked against its record, byte for byte")
    citations = verified = answered = 0
    for number, question in enumerate(incident.QUESTIONS):
        begun = time.monotonic()
        answer = verbs.ask(question.text)
        elapsed_ms = (time.monotonic() - begun) * 1000
        citations += len(answer.citations)
        verified += sum(_stands(verbs, answer))
        answered += checks.expect(_is_right(answer, question), f'"{question.text}" is answered')
        if number in _IN_FULL:
            output.out(output.style(f'$ headwater ask "{question.text}"', "dim") + f"   ({elapsed_ms:.0f} ms)")
            _show(answer)
            output.out()
    output.out(
        f"{answered} of {len(incident.QUESTIONS)} questions answered rightly; {verified} of {citations} citations verified."
    )
    checks.expect(citations > 0 and verified == citations, "every citation is verified")


def _stands(verbs: Headwater, answer: Answer) -> list[bool]:
    """For each citation, whether its quote stands in its record where it says: read again here, not taken on trust."""
    records = {c.address: verbs.read(c.address).record for c in answer.citations}
    return [c.verified and records[c.address].value[c.start : c.end] == c.quote for c in answer.citations]


def _is_right(answer: Answer, question: incident.Question) -> bool:
    """Whether the first thing that an answer says has all facts of its question; what follows it does not mend it."""
    said = answer.citations[0].quote.lower() if answer.citations else ""
    return not answer.abstained and all(any(wording in said for wording in fact) for fact in question.facts)


def _own_searches(verbs: Headwater, topics: Sequence[str], checks: Checks) -> None:
    """The same on what nobody made for this: the machine's logs and the documents."""
    queries = {MACHINE: "software was put onto this computer", DOCS: "what happens when the power is cut"}
    shown = [topic for topic in topics if topic in queries]
    if shown:
        _heading("6. The same on real data of this machine")
    for topic in shown:
        begun = time.monotonic()
        reply = verbs.search(queries[topic], topics=[topic], top_k=2)
        elapsed_ms = (time.monotonic() - begun) * 1000
        command = f'$ headwater search "{queries[topic]}" --topics {topic}'
        output.out(output.style(command, "dim") + f"   ({elapsed_ms:.0f} ms)")
        for hit in reply:
            show_hit(hit, most=_HIT_CHARS)
        checks.expect(len(reply) > 0, f"a search in {topic} finds something")


def _wakes(verbs: Headwater, checks: Checks) -> None:
    """A watch for the like of one line of the incident, and that line once more: the wait ends."""
    seen = verbs.search(f'"{incident.CAUSES[0]}"', topics=["logs"], top_k=1, mode="keyword")[0]
    _heading("7. Wake me if it recurs")
    output.out(output.style(f"$ headwater watch add --like {seen.address}", "dim"))
    watch = verbs.add_watch(like=seen.address, ttl="1h")
    again = verbs.append("logs", [seen.value]).records[0]
    begun = time.monotonic()
    woken = verbs.wait(watch.id, timeout=_SEARCHABLE_S)
    output.out(f"woken by {', '.join(hit.address for hit in woken.hits)} {(time.monotonic() - begun) * 1000:.0f} ms later")
    checks.expect(again.address in [hit.address for hit in woken.hits], "a watch wakes when the cause recurs")


def _finds_what_is_odd(verbs: Headwater, checks: Checks, start: datetime) -> None:
    """The anomaly that detectors found while the lines streamed in, on a budget of three alerts a day."""
    _heading("8. What is odd, found as it happened, with at most three alerts a day")
    end = time.monotonic() + _SEARCHABLE_S
    while verbs.detecting("logs")[0].behind and time.monotonic() < end:
        time.sleep(0.1)
    found = verbs.anomalies(["logs"])
    output.out(output.style("$ headwater anomaly list logs", "dim"))
    for one in found:
        output.out(f"{output.style(one.id, 'bold')}  {output.when(one.start)}  {one.severity}")
        output.out(textwrap.fill(output.line_of(one.what), 116, initial_indent="  ", subsequent_indent="    "))
    deploy = incident.deploy_at(start)
    end_of_it = deploy + timedelta(minutes=incident.ROLLBACK_MINUTE - incident.DEPLOY_MINUTE)
    checks.expect(any(deploy <= one.start <= end_of_it for one in found), "the incident alerts")
    checks.expect(len(found) <= 3, "the alert budget holds")


def _connect(runtime: Runtime, directory: Path, keep: bool) -> None:
    _heading("Connect an agent to streams of your own (start the daemon with `headwater up FILE...`)")
    claude, entry = agent_lines(directory if keep else None)
    output.out(f"  {claude}")
    output.out(f"  {entry}")
    if keep:
        _heading("The daemon of this demo is left running")
        output.out(f"  {runtime.url}   (API at {runtime.url}/docs)")
        output.out(f'  {program()} search "who was charged twice" --data {directory}')
        output.out(f"  stop it:  kill {runtime.pid} && rm -r {directory}")


def _verdict(checks: Checks, elapsed_s: float) -> bool:
    output.out()
    for what in checks.failed:
        output.out(output.style(f"FAILED: {what}", "red"))
    total = checks.passed + len(checks.failed)
    output.out(f"{checks.passed} of {total} checks against the truth of the incident hold; {elapsed_s:.1f} s in all")
    return not checks.failed
