"""A chat in the terminal whose answers are shown as they are made, with their citations.

Run it: python chat_stream.py            (two questions over three notes, in memory)
        python chat_stream.py QUESTION   (over the running daemon's records)
"""

import sys

import headwater
from headwater import Answer, Citation

NOTES = [
    "The pool of database connections was too small: payments v2.14 set it to 5.",
    "Rolling back payments to v2.13 brought the pool back to 20 connections, and the errors stopped.",
    "Lunch is at noon on the roof.",
]


def say(hw: headwater.Headwater, question: str, conversation: str) -> None:
    """One turn: words as they come, then what they rest on."""
    print(f"> {question}")
    cited: list[Citation] = []
    for event in hw.ask(question, conversation=conversation, stream=True):
        if event.event == "token":
            print(event.data, end="", flush=True)
        elif isinstance(event.data, Citation):
            cited.append(event.data)
        elif isinstance(event.data, Answer) and event.data.unsupported:
            print("\n(not in the records: " + "; ".join(event.data.unsupported) + ")", end="")
    print()
    for citation in cited:
        print(f"  [{citation.n}] {citation.address}")
    print()


if len(sys.argv) > 1:
    with headwater.connect() as hw:
        say(hw, " ".join(sys.argv[1:]), "terminal")
else:
    with headwater.open(":memory:") as hw:
        hw.append("notes", NOTES, wait="searchable", timeout_s=60)
        say(hw, "What was wrong with the pool of connections?", "demo")
        say(hw, "And what stopped the errors?", "demo")  # the conversation says which errors
