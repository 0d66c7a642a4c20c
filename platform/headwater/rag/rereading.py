"""A search whose best hits a cross-encoder reads again."""

from __future__ import annotations

from dataclasses import replace

from headwater.errors import UsageError
from headwater.rag.retrieval import RERANKED, Rerank, reread
from headwater.records import SearchReply
from headwater.search.finding import Finding
from headwater.search.searching import Plan
from headwater.search.shortening import within


async def search_again(finding: Finding, wanted: Plan, rerank: Rerank) -> SearchReply:
    """The best hits of a plan in the order of a cross-encoder and their own scores, half of each; hits beyond those it reads
    come behind. There is one page. UsageError for a further one; EmbedError where the reranker is not there."""
    if wanted.skip:
        raise UsageError("a search that is reranked has one page; ask for more with top_k, or leave rerank out")
    reply = await finding.run(replace(wanted, top_k=max(wanted.top_k, RERANKED), max_tokens=None))
    hits = tuple(await reread(wanted.words, reply.hits, rerank)) if wanted.words else reply.hits
    cut = max(len(hits) - wanted.top_k, 0)
    omitted = reply.coverage.omitted + cut
    coverage = replace(reply.coverage, omitted=omitted, truncated=omitted > 0, next_cursor=None)
    reply = replace(reply, hits=hits[: wanted.top_k], coverage=coverage)
    return reply if wanted.max_tokens is None else within(reply, wanted.max_tokens, lambda _: None)
