"""`ask.wordings`: a question is searched for in other wordings of the model's too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import headwater
from headwater import Headwater

OURS = "AUTH-17 mutual handshake rejected by the vault"
NOISE = [f"the coffee machine on floor {n} is broken again" for n in range(30)]


def opened(folder: Path, said: dict[str, Any], *, wordings: int, **llm: Any) -> Headwater:
    script = folder / "script.json"
    script.write_text(
        json.dumps([{"if": "^(?!.*Question:)", **said}, {"if": "Question:", "say": "It was rejected by the vault [1]."}])
    )
    model = {"provider": "rehearsal", "model": str(script), "retries": 0, "cache_enabled": False, **llm}
    hw = headwater.open(folder / "data", embedding={"model": "none"}, llm=model, ask={"wordings": wordings})
    hw.create_topic("logs", passages="exact")
    hw.append("logs", [OURS, *NOISE], wait="searchable", timeout_s=240)
    return hw


def test_what_only_another_wording_finds_answers(tmp_path: Path) -> None:
    said = {"say": "1. mutual handshake rejected\n2. vault login refused\n- certificate"}
    with opened(tmp_path, said, wordings=3) as hw:
        answer = hw.ask("why can nobody sign in?")
        assert [c.address for c in answer.citations] == ["logs/0/0"]
        assert not answer.abstained
        kept = hw.answer(answer.id)
        assert kept.settings["wordings"] == 3
        assert kept.read[0].address == "logs/0/0"


def test_without_wordings_it_is_not_found(tmp_path: Path) -> None:
    with opened(tmp_path, {"say": "mutual handshake rejected"}, wordings=0) as hw:
        assert hw.ask("why can nobody sign in?").abstained


def test_a_model_that_fails_at_wordings_leaves_the_question_as_it_is(tmp_path: Path) -> None:
    with opened(tmp_path, {"fault": 400}, wordings=2) as hw:
        answer = hw.ask("what was rejected by the vault?")
        assert [c.address for c in answer.citations] == ["logs/0/0"]


def test_wordings_that_say_nothing_or_too_much_do_no_harm(tmp_path: Path) -> None:
    said = {"say": "\n\n-\n1.\n" + "\n".join(f"coffee floor {n} " * 90 for n in range(9))}
    with opened(tmp_path, said, wordings=2) as hw:
        answer = hw.ask("what was rejected by the vault?")
        assert answer.citations[0].address == "logs/0/0"


def test_wordings_go_with_a_conversation(tmp_path: Path) -> None:
    with opened(tmp_path, {"say": "mutual handshake rejected"}, wordings=1) as hw:
        first = hw.ask("why can nobody sign in?", conversation="c1")
        again = hw.ask("and why is that?", conversation="c1")
        assert {c.address for c in (*first.citations, *again.citations)} == {"logs/0/0"}
