"""The same question to several chat models, and a fallback while one is down.

Run it: python switching_providers.py                            (offline: no model, and a rehearsal that only repeats)
        python switching_providers.py ollama:llama3.1 openai:gpt-5-mini

Keys come from the environment (OPENAI_API_KEY ...). `rehearsal` is for trying things out: it says that it is no model.
"""

import sys

import headwater

NOTES = [
    "The pool of database connections was too small: payments v2.14 set it to 5.",
    "Rolling back payments to v2.13 brought the pool back to 20 connections, and the errors stopped.",
]
QUESTION = "What was wrong with the pool of connections?"
chosen = sys.argv[1:] or ["extractive", "rehearsal"]

with headwater.open(":memory:", llm={"provider": "rehearsal"}) as hw:
    hw.append("notes", NOTES, wait="searchable", timeout_s=60)
    for model in chosen:
        try:
            answer = hw.ask(QUESTION, model=model)
        except headwater.HeadwaterError as error:
            # A key that is missing, a server that is down: it says which, and what mends it.
            print(f"{model}: {error}\n")
            continue
        print(f"{model}: {answer.text}")
        for citation in answer.citations:
            print(f"   {citation.address} verified={citation.verified}: {citation.quote}")
        print(f"   answered by {answer.model}, {dict(answer.usage)}\n")

# A server that nobody answers at, and what is asked instead. No question is lost; `usage` and `model` tell who answered.
down = {"provider": "custom", "model": "any", "base_url": "http://127.0.0.1:9/v1", "fallback": ["rehearsal"], "retries": 0}
with headwater.open(":memory:", llm=down) as hw:
    print("with a fallback:", hw.complete("Good morning.").model)
    for model in hw.models():
        if model.standing != "known":  # the others are those that could be configured
            print("  ", model.name, model.problem or "ready")
