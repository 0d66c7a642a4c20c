"""LlamaIndex over a topic: its records as a retriever of any pipeline, and a chat whose answers are checked.

Run it: python llamaindex_over_a_topic.py     (needs pip install 'headwater[llama]')

The query engine is given LlamaIndex's mock, which repeats what it is shown; put the LLM of your choice in its place.
"""

from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine

import headwater
from headwater.rag.llama import chat_engine, retriever

NOTES = [
    {"key": "pool", "value": "The pool of database connections was too small: v2.14 of payments set it to 5."},
    {"key": "fix", "value": "Rolling back payments to v2.13 brought the pool back to 20 connections, and the errors stopped."},
    {"key": "lunch", "value": "Lunch is at noon on the roof."},
]

with headwater.open(":memory:") as hw:  # headwater.connect() for a daemon
    hw.append("notes", NOTES, wait="searchable")

    found = retriever(hw, topics=["notes"], top_k=2)
    for hit in found.retrieve("why could payments not reach the database?"):
        print(f"{hit.score:.2f} {hit.node.metadata['address']} {hit.node.text}")

    engine = RetrieverQueryEngine.from_args(found, llm=MockLLM())
    reply = engine.query("what stopped the errors?")
    print("a query engine read", [source.node.metadata["address"] for source in reply.source_nodes])

    chat = chat_engine(hw, topics=["notes"])
    print(chat.chat("What was wrong with the pool of connections?"))
    answer = chat.chat("And what stopped the errors?")
    print(answer)
    print("each citation was checked:", [source.node.metadata["address"] for source in answer.source_nodes])
