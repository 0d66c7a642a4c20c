"""What a model was trained to see before a query and before a passage, by the name of the model.

Only models that providers serve bare (Ollama, TEI, llamafile, fastembed ...) need it; hosted ones have a parameter, or no
difference. Source: the model card of each family. `embedding.query_prefix` and `embedding.passage_prefix` come before it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from headwater.embed.embedder import Kind

_SEARCHING = "Represent this sentence for searching relevant passages: "
# pattern of the name, in lower case -> (query, passage); the first that is found counts
_FAMILIES: tuple[tuple[str, tuple[str, str]], ...] = (
    (r"e5.*instruct", ("Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery: ", "")),
    (r"(^|[^a-z0-9])e5([^a-z0-9]|$)", ("query: ", "passage: ")),
    (r"nomic-embed-text", ("search_query: ", "search_document: ")),
    (r"bge-(small|base|large)-en", (_SEARCHING, "")),
    (r"mxbai-embed-(large|xsmall)", (_SEARCHING, "")),
    (r"arctic-embed(2|.*v2)", ("query: ", "")),
    (r"arctic-embed", (_SEARCHING, "")),
)


def prefixes(model: str, query: str | None = None, passage: str | None = None) -> Mapping[Kind, str]:
    """What to put before a text of each kind: as given, else as the model's family wants it, else nothing."""
    known = next((pair for pattern, pair in _FAMILIES if re.search(pattern, model.lower())), ("", ""))
    return {"query": known[0] if query is None else query, "passage": known[1] if passage is None else passage}
