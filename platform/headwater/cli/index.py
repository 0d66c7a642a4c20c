"""`headwater index`: the meaning index of each topic: its model, its size, its state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headwater.cli import index_progress, output
from headwater.cli.session import Csv, Data, Json, Jsonl, Url, Yes, confirmed, session

if TYPE_CHECKING:
    from headwater.records import IndexInfo
    from headwater.records.indexes import SwapStep

Name = Annotated[str, typer.Argument(metavar="TOPIC")]
Model = Annotated[
    str | None,
    typer.Option("--embedding-model", "--model", help="The model; the one it has, else the default, when not given."),
]
Kind = Annotated[str | None, typer.Option("--kind", help="How segments are searched: hnsw, flat or ivf.")]
MetricOption = Annotated[str | None, typer.Option("--metric", help="Distance between vectors: cosine, euclidean or dot.")]
HnswM = Annotated[int | None, typer.Option(help="HNSW neighbours per vector.")]
HnswEfConstruction = Annotated[int | None, typer.Option(help="HNSW candidates while building.")]
HnswEfSearch = Annotated[int | None, typer.Option(help="HNSW candidates while searching.")]
IvfCells = Annotated[int | None, typer.Option(help="Cells of an ivf segment; 0 for a number that suits its size.")]
IvfNProbe = Annotated[int | None, typer.Option(help="Cells of an ivf segment that a search scans.")]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Show how far it is until it is complete.")]
group = typer.Typer(invoke_without_command=True, rich_markup_mode=None)
_HEADS = ("TOPIC", "STATE", "MODEL", "DIM", "METRIC", "INDEX", "KIND", "PASSAGES", "VECTORS", "TAIL", "SEGMENTS")
_CSV = (
    "topic", "state", "model", "dimension", "metric", "passages", "count_passages", "count_vectors", "tail", "segments",
    "error", "kind",
)  # fmt: skip


def add(app: typer.Typer) -> None:
    app.add_typer(group, name="index")


@group.callback()
def _list_by_default(
    context: typer.Context, json: Json = False, jsonl: Jsonl = False, csv: Csv = False, data: Data = None, url: Url = None
) -> None:
    """The index of each topic: model, size, state.

    Without a command, all of them.

    \b
    headwater index
    headwater index create logs --embedding-model bge-small
    headwater index rebuild logs
    """
    if context.invoked_subcommand is None:
        list_indexes(json, jsonl, csv, data, url)


@group.command("list")
def list_indexes(json: Json = False, jsonl: Jsonl = False, csv: Csv = False, data: Data = None, url: Url = None) -> None:
    """The index of every topic.

    \b
    headwater index list
    """
    form = output.chosen(json=json, jsonl=jsonl, csv=csv)
    with session(data, url) as verbs:
        found = verbs.indexes()
    if form is not output.Format.TEXT:
        rows = (
            [i.topic, i.state, i.model, i.dimension, i.metric, i.passages, i.count_passages, i.count_vectors, i.tail,
             len(i.segments), i.error, i.kind]
            for i in found
        )  # fmt: skip
        output.show_all(form, found, _CSV, rows)
        return
    if not found:
        output.say("no topics yet")
        return
    lines = (
        [i.topic, i.state, i.model or "-", str(i.dimension or "-"), i.metric, i.kind, i.passages,
         output.number(i.count_passages),
         output.number(i.count_vectors), output.number(i.tail), str(len(i.segments))]
        for i in found
    )  # fmt: skip
    output.show_table(_HEADS, lines, right=(3, 7, 8, 9, 10))
    for info in found:
        if info.error:
            output.say(f"{info.topic}: {output.line_of(info.error)}")
        elif info.progress is not None:
            output.say(f"{info.topic}: {index_progress.line(info.progress)}")
        if info.shadow is not None:
            output.say(f"{info.topic}: beside it {index_progress.shadow_line(info.shadow)}")


@group.command()
def describe(name: Name, json: Json = False, data: Data = None, url: Url = None) -> None:
    """One index: kind and parameters, model, sizes, segments, and how far it is where it is being built.

    \b
    headwater index describe logs
    """
    with session(data, url) as verbs:
        info = verbs.index(name)
    _show(info, json)


@group.command()
def create(
    name: Name,
    embedding_model: Model = None,
    kind: Kind = None,
    metric: MetricOption = None,
    hnsw_m: HnswM = None,
    hnsw_ef_construction: HnswEfConstruction = None,
    hnsw_ef_search: HnswEfSearch = None,
    ivf_cells: IvfCells = None,
    ivf_n_probe: IvfNProbe = None,
    wait: Wait = False,
    json: Json = False,
    data: Data = None,
    url: Url = None,
) -> None:
    """Switch meaning search on for a keyword-only topic, or change the settings of an index.

    What is stored already is embedded in the background; --wait shows how far it is. Changed settings take effect in the
    background too: the index as it is answers meanwhile, and nothing is embedded again.

    \b
    headwater index create logs --embedding-model bge-small
    """
    settings = _given(locals())
    with session(data, url) as verbs:
        info = verbs.create_index(name, embedding_model, **settings)
        if wait:
            info = index_progress.follow(verbs, name)
    _show(info, json)


@group.command()
def rebuild(
    name: Name,
    embedding_model: Model = None,
    shadow: Annotated[
        bool, typer.Option("--shadow", help="Build the model's index beside the live one; it takes over when told.")
    ] = False,
    threshold: Annotated[
        float | None,
        typer.Option("--threshold", metavar="SHARE", help="With --shadow: take over by itself at this overlap@10 (0 to 1)."),
    ] = None,
    status: Annotated[bool, typer.Option("--status", help="Show the second model: how far it is, how it compares.")] = False,
    explain: Annotated[bool, typer.Option("--explain", help="With --status: both models' answers to a few queries.")] = False,
    cut_over: Annotated[bool, typer.Option("--cut-over", help="Let the second model answer from now on.")] = False,
    roll_back: Annotated[bool, typer.Option("--roll-back", help="Let the model before the cut-over answer again.")] = False,
    drop_old: Annotated[
        bool, typer.Option("--drop-old", help="Forget the model that does not answer, with its vectors.")
    ] = False,
    cancel: Annotated[bool, typer.Option("--cancel", help="Give up what is being built.")] = False,
    kind: Kind = None,
    metric: MetricOption = None,
    hnsw_m: HnswM = None,
    hnsw_ef_construction: HnswEfConstruction = None,
    hnsw_ef_search: HnswEfSearch = None,
    ivf_cells: IvfCells = None,
    ivf_n_probe: IvfNProbe = None,
    wait: Wait = False,
    yes: Yes = False,
    json: Json = False,
    data: Data = None,
    url: Url = None,
) -> None:
    """Build an index anew from the log, with other settings, or with another model beside the live one.

    Stored vectors are used again, and the index as it is answers meanwhile. Another --model takes over when its index is
    complete; with --shadow only when told, or at an overlap of --threshold.

    \b
    headwater index rebuild logs
    headwater index rebuild logs --kind ivf --ivf-n-probe 8
    headwater index rebuild logs --model minilm --shadow --wait
    headwater index rebuild logs --status --explain
    headwater index rebuild logs --cut-over
    """
    settings = _given(locals())
    steps = [step for step, chosen in _steps(cut_over, roll_back, drop_old, cancel) if chosen]
    if len(steps) + status > 1 or ((steps or status) and (embedding_model or shadow or settings)):
        raise typer.BadParameter("--status, --cut-over, --roll-back, --drop-old and --cancel stand alone")
    with session(data, url) as verbs:
        if status:
            index_progress.show_shadow(verbs.shadow(name), json, explain)
            return
        if steps and steps[0] == "drop":
            confirmed(f"Drop the vectors of {verbs.shadow(name).model} of {name}?", yes)
        if steps:
            info = verbs.swap_index(name, steps[0])
        else:
            info = verbs.rebuild_index(name, embedding_model, shadow=shadow, threshold=threshold, **settings)
        if wait:
            info = index_progress.follow(verbs, name)
    _show(info, json)


@group.command()
def delete(name: Name, yes: Yes = False, json: Json = False, data: Data = None, url: Url = None) -> None:
    """Switch meaning search off and drop the topic's vectors; records and keyword search stay.

    \b
    headwater index delete logs --yes
    """
    with session(data, url) as verbs:
        count = verbs.index(name).count_vectors
        confirmed(f"Drop {output.plural(count, 'vector')} of {name}?", yes)
        info = verbs.delete_index(name)
    _show(info, json)


def _steps(cut_over: bool, roll_back: bool, drop_old: bool, cancel: bool) -> tuple[tuple[SwapStep, bool], ...]:
    return (("cut-over", cut_over), ("roll-back", roll_back), ("drop", drop_old), ("cancel", cancel))


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of an index among a command's options."""
    from headwater.config import INDEX_SETTINGS

    named = {"index_kind": options["kind"]} | {name: options[name] for name in INDEX_SETTINGS if name in options}
    return {name: value for name, value in named.items() if value is not None}


def _show(info: IndexInfo, json: bool) -> None:
    if json:
        output.show_json(info)
        return
    parameters = {"hnsw": info.hnsw, "ivf": info.ivf}.get(info.kind, {})
    facts = {
        "topic": info.topic,
        "state": info.state if info.error is None else f"{info.state}: {output.line_of(info.error)}",
        "progress": "" if info.progress is None else index_progress.line(info.progress),
        "model": info.model or "none: keyword search only",
        "dimension": str(info.dimension or "-"),
        "metric": info.metric,
        "passages": f"{info.count_passages:,} ({info.passages})",
        "vectors": f"{info.count_vectors:,}, {info.tail:,} of them in the tail"
        + (f"; {info.dead:,} removed ones still on disk" if info.dead else ""),
        "kind": ", ".join([info.kind, *(f"{name} {value}" for name, value in parameters.items())]),
        "second": "" if info.shadow is None else index_progress.shadow_line(info.shadow),
    }
    for name, value in facts.items():
        if value:
            output.out(f"{name:<9}  {value}")
    for segment in info.segments:
        count, held = segment.get("count", 0), segment.get("bytes", 0)
        more = [f"recall {segment['recall']:.3f}"] if segment.get("recall") is not None else []
        more += [f"{segment['dead']:,} dead"] if segment.get("dead") else []
        more += [str(segment["kind"])] if segment.get("kind") else []
        output.out(f"segment    {segment.get('name')}: {', '.join([f'{count:,} passages', output.size(held), *more])}")
