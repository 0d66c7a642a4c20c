"""Pipelines: what is written wrongly is said with its line, every record is done once, and what is known is not asked again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import jsonschema
import orjson
import pytest
import yaml

import headwater
from headwater.blocking import Headwater
from headwater.enrich.spec import schema, spec_of
from headwater.errors import NotFoundError, UsageError
from headwater.records import Record
from serving import eventually, serving, settings_in

TRIAGE = """
topics: [t]
output: t.out
steps:
  - redact: {kinds: [secrets]}
  - classify: {labels: {disk: the disk is full, login: login of a user failed}}
    min_confidence: 0.5
  - if: 'label:login'
    then:
      - extract: {schema: {type: object, properties: {user: {type: string}}}, by: regex, patterns: {user: 'user (\\w+)'}}
      - route: {to: [{topic: security, when: 'user:root'}, {topic: logins, label: login}]}
    else:
      - drop: nothing
"""


@pytest.fixture(params=["open", "connect"])
def hw(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Headwater]:
    if request.param == "open":
        with headwater.open(tmp_path, embedding={"model": "hash"}) as opened:
            yield opened
    else:
        with serving(settings_in(tmp_path)) as url, headwater.connect(url) as connected:
            yield connected


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Headwater]:
    with headwater.open(tmp_path, embedding={"model": "hash"}) as opened:
        yield opened


def fill(hw: Headwater, values: list[object], topic: str = "t", kind: str = "exact") -> None:
    if topic not in [t.name for t in hw.topics()]:
        hw.create_topic(topic, passages=kind)
    hw.append(topic, values, wait="searchable", timeout_s=60)  # type: ignore[arg-type]


def done(hw: Headwater, name: str, records: int) -> headwater.blocking.Headwater | None:  # type: ignore[name-defined]
    eventually(lambda: hw.pipeline(name).records >= records and hw.pipeline(name).behind == 0)


def out(hw: Headwater, topic: str) -> list[Record]:
    return list(hw.records(topic, limit=1000).records)


# ---------------------------------------------------------------------- written


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("steps: []", "steps are a list, with at least one"),
        ("topics: [a]\nsteps:\n  - clasify: {labels: [a, b]}", "line 3.*unknown 'clasify'; did you mean 'classify'"),
        ("steps:\n  - classify: {label: [a, b]}", "line 2.*unknown 'label'; did you mean 'labels'"),
        ("steps:\n  - classify: {labels: [a, b]}\n    min_confidense: 0.5", "line 3.*did you mean 'min_confidence'"),
        ("steps:\n  - classify: {labels: [a, b]}\n    min_confidence: 5", "line 3.*5 is greater than the maximum"),
        ("stepz: []", "unknown 'stepz'; did you mean 'steps'"),
        ("steps:\n  - extract: {by: regex}", "line 2.*extract needs 'schema'"),
        ("steps:\n  - {classify: {labels: [a, b]}, redact: {}}", "of one kind"),
        ("steps:\n  - when: x", "does not say what to do"),
        ("steps:\n  - redact: {}\n  - stop: 'level:>zz'", "level"),
        ("topics: [a]\noutput: a\nsteps: [redact]", "which it writes to"),
        ("steps: [redact]\noutput: 'a b'", "no name of a topic"),
        ("steps:\n  - redact: {}\n    timeout: soon", "not a duration"),
        ("steps: [redact, {", "line 1, column.*not YAML"),
        ("steps:\n  - redact: {}\n    redact: {}", "is there twice"),
        ("steps:\n  - ensemble: [redact]", "made of classify steps"),
        (
            "steps:\n  - ensemble: {by: weighted, weights: [1], steps: [{score: {like: a}}, {score: {like: b}}]}",
            "needs 2 weights",
        ),
        ("steps:\n  - route: {to: [{topic: x, wehn: y}]}", "did you mean 'when'"),
        ("a: &a [1]\nsteps: *a", "unknown 'a'"),
        ("topics: [a]\nsteps:\n  - route: {otherwise: b, to: [{topic: a, when: x}]}", r"line 3.*to\[1\].topic.*it writes to"),
        ("steps: [redact]\ntopics: ['a b']", "line 2.*no name of a topic"),
        ("steps:\n  - if: x\n    then: [redact]\n    els: [redact]", "line 4.*did you mean 'else'"),
    ],
)
def test_what_is_written_wrongly_is_said_with_its_line_and_the_nearest_name(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=f"(?s){said}"):
        spec_of(text)


def test_yaml_json_and_python_say_the_same_and_follow_the_schema() -> None:
    plain = yaml.safe_load(TRIAGE)
    jsonschema.Draft202012Validator(schema()).validate(plain)
    specs = [spec_of(TRIAGE), spec_of(orjson.dumps(plain).decode()), spec_of(plain)]
    assert specs[0].plain == specs[1].plain == specs[2].plain
    assert [leaf.name for leaf in specs[0].leaves()] == ["redact", "classify", "extract", "route", "drop"]
    assert specs[0].targets() == ("t.out", "security", "logins")
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(schema()).validate({"steps": [{"clasify": {}}]})


def test_steps_of_one_name_are_told_apart() -> None:
    assert [leaf.name for leaf in spec_of("steps: [redact, redact, {redact: {}, name: last}]").leaves()] == [
        "redact", "redact-2", "last",
    ]  # fmt: skip


# ---------------------------------------------------------------------- run


def test_records_get_labels_values_and_routes_once_each(hw: Headwater) -> None:
    fill(hw, ["the disk is full", "login of user root failed password=hunter2", "login of user ada failed"])
    made = hw.create_pipeline("triage", TRIAGE)
    assert (made.version, made.output) == (1, "t.out")
    fill(hw, ["the disk is full"])
    done(hw, "triage", 4)
    found = out(hw, "t.out")
    assert [r.attributes["source"] for r in found] == ["t/0/0", "t/0/1", "t/0/2", "t/0/3"]
    assert [r.attributes["label"] for r in found] == ["disk", "login", "login", "disk"]
    assert found[1].value == "login of user root failed password=[password]"
    assert found[1].attributes["user"] == "root"
    assert 0.5 <= found[1].attributes["label_confidence"] <= 1
    assert [r.attributes["source"] for r in out(hw, "security")] == ["t/0/1"]
    assert [r.attributes["source"] for r in out(hw, "logins")] == ["t/0/1", "t/0/2"]
    seen = hw.pipeline("triage")
    assert (seen.state, seen.records, seen.written, seen.dead_letters, seen.behind) == ("running", 4, 7, 0, 0)
    classify = next(step for step in seen.steps if step.kind == "classify")
    assert classify.decided == 3  # the fourth record has the passage of the first
    eventually(lambda: len(hw.search("label:login", topics=["t.out"], mode="keyword")) == 2)


def test_a_passage_is_decided_once_for_all_its_records(alone: Headwater) -> None:
    fill(alone, [f"disk sd{n} is full now" for n in range(200)], kind="template")
    alone.create_pipeline("p", "topics: [t]\noutput: o\nsteps: [{classify: {labels: [disk, login]}}]")
    done(alone, "p", 200)
    assert len(out(alone, "o")) == 200
    seen = alone.pipeline("p")
    assert seen.steps[0].decided <= alone.topic("t").passages + 5


def test_a_pipeline_stops_starts_is_changed_and_goes(hw: Headwater) -> None:
    spec = "topics: [t]\noutput: o\nsteps: [{classify: {labels: [disk, login]}}]"
    fill(hw, ["disk"])
    hw.create_pipeline("p", spec)
    done(hw, "p", 1)
    assert hw.stop_pipeline("p").state == "stopped"
    fill(hw, ["login"])
    assert hw.pipeline("p").behind == 1
    assert len(out(hw, "o")) == 1
    hw.start_pipeline("p")
    done(hw, "p", 2)
    changed = hw.create_pipeline("p", spec + "\ndescription: with a word", rerun=True)
    assert changed.version == 2
    eventually(lambda: len(out(hw, "o")) == 4)
    assert [r.attributes["pipeline_version"] for r in out(hw, "o")] == [1, 1, 2, 2]
    assert hw.pipeline("p").steps[0].decided == 0  # the step is as it was: every decision was known
    assert hw.pipeline("p").steps[0].hits == 2
    assert hw.create_pipeline("p", spec + "\ndescription: with a word").version == 2
    hw.delete_pipeline("p")
    assert hw.pipelines() == []
    with pytest.raises(NotFoundError, match="no pipeline"):
        hw.pipeline("p")
    assert len(out(hw, "o")) == 4


def test_since_says_which_stored_records_are_read(alone: Headwater) -> None:
    fill(alone, ["one", "two"])
    alone.create_pipeline("p", "topics: [t]\nsince: now\noutput: o\nsteps: [redact]")
    fill(alone, ["three"])
    done(alone, "p", 1)
    assert [r.value for r in out(alone, "o")] == ["three"]


def test_a_pipeline_goes_on_after_a_restart(tmp_path: Path) -> None:
    with headwater.open(tmp_path, embedding={"model": "hash"}) as hw:
        fill(hw, ["disk"])
        hw.create_pipeline("p", "topics: [t]\noutput: o\nsteps: [{classify: {labels: [disk, login]}}]")
        done(hw, "p", 1)
    with headwater.open(tmp_path, embedding={"model": "hash"}) as hw:
        fill(hw, ["disk"])
        done(hw, "p", 2)
        assert [r.attributes["source"] for r in out(hw, "o")] == ["t/0/0", "t/0/1"]
        assert hw.pipeline("p").steps[0].decided == 0


def test_records_that_go_in_a_circle_are_refused(alone: Headwater) -> None:
    alone.create_pipeline("a", "topics: [x]\noutput: y\nsteps: [redact]")
    with pytest.raises(UsageError, match="in a circle"):
        alone.create_pipeline("b", "topics: [y]\noutput: x\nsteps: [redact]")
    alone.create_pipeline("c", "topics: [y]\noutput: z\nsteps: [redact]")
    fill(alone, ["hello"], topic="x")
    eventually(lambda: "z" in [t.name for t in alone.topics()] and alone.topic("z").records == 1)
    assert out(alone, "z")[0].attributes["source"] == "y/0/0"


def test_a_pipeline_over_all_topics_does_not_read_what_pipelines_write(alone: Headwater) -> None:
    fill(alone, ["hello"])
    alone.create_pipeline("p", "output: o\nsteps: [redact]")
    done(alone, "p", 1)
    fill(alone, ["again"], topic="u")
    done(alone, "p", 2)
    assert sorted(r.attributes["source"] for r in out(alone, "o")) == ["t/0/0", "u/0/0"]


# ---------------------------------------------------------------------- tried


def test_a_backtest_tells_what_would_be_otherwise_and_writes_nothing(hw: Headwater) -> None:
    fill(hw, ["disk full", "login failed", "disk full", "login ok"])
    hw.create_pipeline("p", "topics: [t]\noutput: o\nsteps: [{classify: {labels: [disk, login]}}]")
    done(hw, "p", 4)
    other = "topics: [t]\noutput: o\nsteps: [{classify: {labels: [disk, failed, login]}}]"
    tried = hw.backtest_pipeline("p", other, records=4, samples=2)
    assert (tried.records, tried.passages, len(tried.samples), tried.failed) == (4, 3, 2, 0)
    assert sum(tried.fields["label"].values()) == 4
    assert tried.fields["label"]["failed"] == 1
    assert tried.disagree == 0.25
    assert tried.changes[0]["address"] == "t/0/1"
    assert tried.forecast["records"] == 4
    assert len(out(hw, "o")) == 4
    alone = hw.backtest_pipeline("new", other, records=2)
    assert (alone.records, alone.disagree) == (2, None)


def test_records_are_run_step_by_step_without_being_stored(hw: Headwater) -> None:
    events = list(hw.run_pipeline("any", ["login of user root failed", {"value": "the disk is full"}], spec=TRIAGE))
    assert [e.step.step for e in events if e.step is not None and e.n == 0] == ["redact", "classify", "extract", "route"]
    first, second = [e.ran for e in events if e.ran is not None]
    assert first is not None
    assert first.fields["user"] == "root"
    assert first.topics == ("t.out", "logins", "security")
    assert second is not None
    assert second.fields["label"] == "disk"
    assert "security" not in [t.name for t in hw.topics()]


def test_a_trace_tells_each_step_and_what_was_known(hw: Headwater) -> None:
    fill(hw, ["login of user root failed token=abc"])
    hw.create_pipeline("p", TRIAGE)
    done(hw, "p", 1)
    ran = hw.trace_pipeline("p", "t/0/0")
    by = {step.step: step for step in ran.steps}
    assert by["classify"].cached
    assert by["classify"].output == {"label": "login"}
    assert by["classify"].input["fields"] == {}
    assert by["route"].output == {"route": ["logins", "security"]}
    assert ran.address == "t/0/0"


def test_the_api_runs_records_as_json_and_as_events(tmp_path: Path) -> None:
    import httpx

    with serving(settings_in(tmp_path)) as url, httpx.Client(base_url=url) as client:
        body = {"records": ["the disk is full"], "spec": TRIAGE}
        found = client.post("/v1/pipelines/x/run", json=body).json()["results"]
        given = client.post("/v1/enrich", json=body).json()["results"]
        assert [(one["text"], one["fields"]) for one in given] == [(one["text"], one["fields"]) for one in found]
        assert found[0]["fields"]["label"] == "disk"
        stream = client.post("/v1/pipelines/x/run", json={**body, "stream": True}).text
        assert stream.count("event: step") == 3
        assert stream.count("event: done") == 1
        wrong = client.post("/v1/pipelines", json={"name": "x", "spec": "steps:\n  - clasify: {}"})
        assert wrong.status_code in (400, 422)
        assert "did you mean 'classify'" in wrong.json()["detail"]
