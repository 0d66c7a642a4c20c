"""Three judges label support tickets together: by what labels mean, by a linear head and by the nearest examples.

Run it: python ensemble_pipeline.py. It needs no network and no chat model, and keeps nothing.
"""

from __future__ import annotations

import time
from pathlib import Path

import headwater

TICKETS = [
    "You took the money for order 4711 two times, card 4111 1111 1111 1111",
    "The password reset mail never comes, write to ann@example.org",
    "My parcel is lost, the courier was never here",
    "I am locked out of my account since this morning",
    "Please send the invoice for March once more",
    "Where is my delivery? Tracking has not changed for a week",
]
SPEC = Path(__file__).with_suffix(".yaml").read_text("utf-8")

with headwater.open(":memory:") as hw:
    hw.append("tickets", TICKETS, wait="searchable", timeout_s=60)

    tried = hw.backtest_pipeline("triage", SPEC, samples=0)  # what it would do; nothing is written
    print("tried on", tried.records, "records:", dict(tried.fields["team"]))

    hw.create_pipeline("triage", SPEC)
    until = time.monotonic() + 60
    while (seen := hw.pipeline("triage")).records < len(TICKETS):
        if seen.error or time.monotonic() > until:
            raise SystemExit(f"the pipeline is {seen.state}: {seen.error}")
        time.sleep(0.1)

    for record in hw.records("tickets.labelled").records:
        about = record.attributes
        print(f"{about['team']:9} {about['team_confidence']:.2f}  urgency {about['urgency']:.2f}  {record.value}")

    print()
    for step in hw.trace_pipeline("triage", "tickets/0/0").steps:  # how the first came to its label
        print(f"{step.step:15} {dict(step.output)}")
