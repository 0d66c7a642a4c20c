"""Question -> search -> sentences -> checked citations -> answer. The extractive form, which needs no model.

Record text is untrusted: an answer shows it only as a code span, with hidden and control characters as escapes, and
every quote passes the same check (`headwater.rag.citations`) that a model's answer would.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime

from headwater.errors import UsageError
from headwater.llm.extractive import ABSTAIN_BELOW, FLOOR, Embed, Evidence, Extract, Sentence, extract
from headwater.rag.citations import Claim, check
from headwater.records import Answer, Coverage, SearchReply
from headwater.visible import visible

MODEL = "extractive"
Search = Callable[[str, int], Awaitable[tuple[SearchReply, Sequence[Evidence]]]]


async def ask(
    question: str,
    *,
    search: Search,
    embed: Embed | None,
    clock: Callable[[], float],
    new_id: Callable[[], str],
    top_k: int = 12,
    limit_sentences: int = 4,
    floor: float = FLOOR,
    threshold: float = ABSTAIN_BELOW,
) -> Answer:
    """The records' own best sentences as an answer, each cited; abstains where support is weak.

    `search(question, top_k)` retrieves, `embed` and its model's `floor` judge meaning (None: words alone), `clock` gives
    monotonic seconds. `usage` counts records, sentences considered and embedded; `timings` are ms. UsageError for a
    blank question; errors of search and embed pass through.
    """
    if not question.strip():
        raise UsageError("the question is empty; ask about what the records say")
    began = clock()
    reply, evidence = await search(question, top_k)
    searched = clock()
    found = await extract(question, evidence, embed=embed, limit_sentences=limit_sentences, floor=floor, threshold=threshold)
    read = clock()
    claims = [
        Claim(n, evidence[s.index].address, evidence[s.index].value[s.start : s.end], s.start)
        for n, s in enumerate(found.sentences, 1)
    ]
    lines = [f"{_shown(evidence[s.index], s)} [{n}]" for n, s in enumerate(found.sentences, 1)]
    text = "\n".join(f"- {line}" for line in lines) if len(lines) > 1 else "".join(lines)
    checked = check(text, claims, evidence, supports=lambda _sentence, _quote: True)  # each sentence IS its quote
    done = clock()
    return Answer(
        id=new_id(),
        question=question,
        text=_nothing_found(found, evidence, reply.coverage) if found.abstained else checked.text,
        citations=checked.citations,
        unsupported=checked.unsupported,
        abstained=found.abstained,
        confidence=round(found.confidence, 4),
        coverage=reply.coverage,
        model=MODEL,
        usage={"records": len(evidence), "sentences": found.considered, "embedded": found.embedded},
        timings={
            "search_ms": _ms(began, searched),
            "read_ms": _ms(searched, read),
            "check_ms": _ms(read, done),
            "total_ms": _ms(began, done),
        },
    )


def _shown(item: Evidence, sentence: Sentence) -> str:
    """The sentence as a code span and, for a pattern, how often and when it was seen."""
    quote = code_span(visible(item.value[sentence.start : sentence.end], newlines="mark"))
    if item.kind == "chunks":
        return quote
    seen = item.passage
    if seen.count > 1:
        return f"{quote} ({seen.count:,} times, {_period(seen.first_seen, seen.last_seen)})"
    return f"{quote} ({_period(item.timestamp, item.timestamp)})"


def code_span(text: str) -> str:
    """`text` between back-ticks that nothing in it can close (CommonMark)."""
    longest = run = 0
    for char in text:
        run = run + 1 if char == "`" else 0
        longest = max(longest, run)
    fence = "`" * (longest + 1)
    pad = " " if text[:1] in ("`", " ") or text[-1:] in ("`", " ") else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def _period(first: datetime, last: datetime) -> str:
    begin, end = f"{first:%Y-%m-%d %H:%M:%S}", f"{last:%Y-%m-%d %H:%M:%S}"
    if begin == end:
        return f"{begin} UTC"
    return f"{begin} to {end if begin[:10] != end[:10] else end[11:]} UTC"


def _nothing_found(found: Extract, evidence: Sequence[Evidence], coverage: Coverage) -> str:
    """What was searched, and what to try."""
    where = f" of {', '.join(coverage.topics)}" if coverage.topics else ""
    if coverage.since and coverage.until:
        where += f" from {_period(coverage.since, coverage.until)}"
    elif coverage.since or coverage.until:
        bound = coverage.since or coverage.until
        assert bound is not None
        where += f" {'since' if coverage.since else 'until'} {_period(bound, bound)}"
    if not evidence:
        said = [f"No answer: nothing matches among the {coverage.searched:,} records{where}."]
    else:
        said = [f"No answer: the {coverage.searched:,} records{where} were searched and none supports one well enough."]
    if found.nearest is not None:
        said.append(f"The nearest is {evidence[found.nearest.index].address}.")
    if coverage.backlog:
        said.append(f"{coverage.backlog:,} records are not searchable by meaning yet; ask again when they are.")
    said.append("Try the words the records would use, a wider time range or other topics; a search shows what comes near.")
    return " ".join(said)


def _ms(start: float, end: float) -> float:
    return round((end - start) * 1000, 3)
