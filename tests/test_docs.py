"""The docs name everything there is and nothing that is gone; their links resolve; their facts are the code's.

A failure says which line is missing or too much: mend docs/reference/.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import shlex
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, cast

import pytest
import typer
from prometheus_client.parser import text_string_to_metric_families

import headwater
from headwater import errors, query
from headwater.api import problems
from headwater.api.app import routes
from headwater.api.metrics import Metrics
from headwater.cli.app import app
from headwater.cli.errors import exit_code
from headwater.config import TopicConfig, describe, load
from headwater.errors import HeadwaterError
from headwater.records import IndexInfo, SourceInfo, Status, Topic, Watermark
from headwater.records.indexes import Comparison, Progress, Shadow
from headwater.records.labels import Pipeline, StepStatus
from headwater.verbs import Verbs
from headwater_mcp.tools import tools
from memory_verbs import MemoryVerbs

ROOT = Path(__file__).parent.parent
REFERENCE = ROOT / "docs" / "reference"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")


def _memory() -> Verbs:
    """Verbs to describe surfaces with; none is called."""
    return cast(Verbs, MemoryVerbs())


def page(name: str) -> str:
    return (REFERENCE / f"{name}.md").read_text("utf-8")


def prose(text: str) -> str:
    """A page without its code blocks."""
    return _FENCED.sub("", text)


def rows(text: str) -> list[list[str]]:
    """The cells of every table's row."""
    lines = [line.rstrip() for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line[1:-1].split("|")] for line in lines]


def code(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


# ---------------------------------------------------------------------- settings


def _default(value: Any) -> str:
    if value in (None, "", ()):
        return "none"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def test_every_setting_is_documented_as_it_is() -> None:
    wanted = [
        f"| `{name}` | {kind.replace('|', ' or ')} | {_default(default)} | {doc} |" for name, kind, default, doc in describe()
    ]
    found = [line for line in page("settings").splitlines() if re.match(r"\| `[a-z_]+(\.|\[|`)", line) and line.count("|") == 5]
    assert found == wanted


def test_every_setting_said_to_be_fixed_is_refused_once_records_exist() -> None:
    from headwater.stock import _FIXED

    said = re.search(r"same\nnames\. ([^.]*?) are fixed once records exist", page("settings"))
    assert said is not None
    assert set(code(said[1])) == set(_FIXED)


def test_every_toml_block_is_a_valid_settings_file(tmp_path: Path) -> None:
    blocks = [text for file in PAGES for kind, text in _FENCED.findall(file.read_text("utf-8")) if kind == "toml"]
    assert blocks
    for text in blocks:
        file = tmp_path / "headwater.toml"
        file.write_text(text, "utf-8")
        load(file, environment=dict.fromkeys(re.findall(r"\$\{(\w+)\}", text), "secret"))


def test_every_json_block_is_json() -> None:
    for file in PAGES:
        for kind, text in _FENCED.findall(file.read_text("utf-8")):
            if kind == "json":
                json.loads(text)


def test_every_environment_variable_named_is_one() -> None:
    known = {"HEADWATER_" + name.replace(".", "_").upper() for name, *_ in describe()}
    known |= {"HEADWATER_URL", "HEADWATER_DEBUG", "HEADWATER_KEY"}  # the last is only ever the reader's own
    known |= {"HEADWATER_SECTION_NAME"}  # how the others are made
    known |= {"HEADWATER_" + name.replace(".", "_").upper() + "_FILE" for name, kind, *_ in describe() if "secret" in kind}
    for file in PAGES:
        named = set(re.findall(r"\bHEADWATER_[A-Z_]+\b", file.read_text("utf-8")))
        assert named <= known, f"{file.name}: {named - known}"


def test_every_model_is_documented() -> None:
    from headwater.embed.lookup import NAMES

    table = page("settings").partition("## Embedding models")[2]
    assert {code(cells[0])[0] for cells in rows(table) if code(cells[0])} == set(NAMES)


# ---------------------------------------------------------------------- commands


def _commands(command: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command that can be called: `(("topics", "create"), command)`. A group counts where it does something alone."""
    command = command or typer.main.get_command(app)
    inner = getattr(command, "commands", {})
    if path and (not inner or command.invoke_without_command):
        yield path, command
    for name, child in inner.items():
        yield from _commands(child, (*path, name))


def _options(command: Any) -> set[str]:
    return {o for p in command.params for o in p.opts + p.secondary_opts if o.startswith("-")} - {"-h", "--help"}


def _sections() -> dict[tuple[str, ...], str]:
    """The text below each heading of the command page, by the command it names (the words in small letters)."""
    found = re.split(r"^## headwater ", page("commands"), flags=re.MULTILINE)[1:]
    return {tuple(w for w in part.split("\n", 1)[0].split() if w.islower()): prose(part.split("\n", 1)[1]) for part in found}


COMMANDS = dict(_commands())


def test_every_command_has_its_section_and_no_other_has_one() -> None:
    assert set(_sections()) == set(COMMANDS)


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_option_of_a_command_is_in_its_section_and_no_other_is(path: tuple[str, ...]) -> None:
    said = {word for span in code(_sections()[path]) for word in span.split()[:1] if re.fullmatch(r"--?[a-z][a-z-]*", word)}
    assert said == _options(COMMANDS[path])


def test_the_arguments_of_each_heading_are_those_of_the_command() -> None:
    for heading in re.findall(r"^## headwater (.*)$", page("commands"), re.MULTILINE):
        path = tuple(w for w in heading.split() if w.islower())
        arguments = [p for p in COMMANDS[path].params if p.param_type_name == "argument"]
        wanted = [p.metavar or p.name.upper() for p in arguments]
        assert " ".join(heading.split()[len(path) :]) == " ".join(wanted), heading


def _written_commands() -> Iterator[tuple[str, str]]:
    """Every `headwater ...` line of a code block, and every code span that is one."""
    for file in PAGES:
        text = file.read_text("utf-8")
        for kind, block in _FENCED.findall(text):
            if kind in ("", "sh", "shell", "bash"):
                for line in block.splitlines():
                    if found := re.search(r"(?:^|[|] *|/)headwater ([a-z].*)", re.sub(r"\s#.*$", "", line)):
                        yield file.name, found[1]
        for span in code(prose(text)):
            if found := re.match(r"headwater ([a-z].*)", span):
                yield file.name, found[1]


def _hinted_commands() -> Iterator[tuple[str, str]]:
    """Every command line in a help text, an error message or a docstring."""
    for path, command in COMMANDS.items():
        for found in re.findall(r"^\s*headwater ([a-z].*)$", command.help or "", re.MULTILINE):
            yield f"help of {' '.join(path)}", found
    for folder in ("platform", "mcp_server"):
        for file in (ROOT / folder).rglob("*.py"):
            for found in re.findall(r"`headwater ([a-z][^`\n\"]*)`", file.read_text("utf-8")):
                yield file.name, found


def test_every_command_line_in_docs_helps_and_errors_names_commands_and_options_there_are() -> None:
    lines = [*_written_commands(), *_hinted_commands()]
    assert len(lines) > 60
    for file, line in lines:
        words = shlex.split(line.partition("|")[0].replace("...", ""))
        path: tuple[str, ...] = ()
        while len(path) < len(words) and any(known[: len(path) + 1] == (*path, words[len(path)]) for known in COMMANDS):
            path = (*path, words[len(path)])
        assert path, f"{file}: headwater {line}"
        if path not in COMMANDS:
            continue  # a group, such as `headwater config`
        options = {w.partition("=")[0] for w in words if re.match(r"--?[a-z]", w)} - {"--help"}
        assert options <= _options(COMMANDS[path]), f"{file}: headwater {line}"


def test_the_exit_codes_are_those_the_help_states() -> None:
    table = {cells[0] for cells in rows(page("commands")) if cells[0].isdigit()}
    stated = re.search(r"Exit codes: (.*?)\n\n", f"{typer.main.get_command(app).help}\n\n", re.DOTALL)
    assert stated is not None
    assert table == set(re.findall(r"\d+", stated[1]))


# ---------------------------------------------------------------------- HTTP, MCP, metrics


API = routes(_memory()).openapi()
OPERATIONS: dict[str, dict[str, Any]] = {
    f"{method.upper()} {path}": one for path, of in API["paths"].items() for method, one in of.items()
}


def _routes() -> dict[str, str]:
    return {code(cells[0])[0]: cells[1] for cells in rows(page("http")) if re.match(r"`[A-Z]+ /", cells[0])}


def test_every_route_is_documented_and_no_other_is() -> None:
    assert set(_routes()) == set(OPERATIONS)


def test_every_route_written_elsewhere_is_one() -> None:
    for file in PAGES:
        for route in re.findall(r"`((?:GET|POST|PATCH|PUT|DELETE) /[^`\s]*)`", file.read_text("utf-8")):
            assert route in OPERATIONS, f"{file.name}: {route}"


@pytest.mark.parametrize("route", OPERATIONS)
def test_every_parameter_of_a_route_is_named_in_its_row(route: str) -> None:
    operation, row = OPERATIONS[route], _routes()[route]
    for parameter in operation.get("parameters", []):
        if parameter["in"] != "path":
            assert f"`{parameter['name']}`" in row, f"{route}: {parameter['name']}"


@pytest.mark.parametrize("route", [r for r, one in OPERATIONS.items() if "requestBody" in one])
def test_every_field_of_a_body_is_named_in_its_row(route: str) -> None:
    operation, row = OPERATIONS[route], _routes()[route]
    schema = next(iter(operation["requestBody"]["content"].values()))["schema"]
    for option in [schema, *schema.get("anyOf", [])]:
        if "$ref" in option:
            option = API["components"]["schemas"][option["$ref"].rsplit("/", 1)[1]]
        for name in option.get("properties", {}):
            assert re.search(rf"\b{name}\b", row), f"{route}: {name}"


def test_every_tool_is_documented_with_its_parameters_and_no_other_is() -> None:
    served = {tool.name: set(tool.parameters["properties"]) for tool in tools(_memory(), allow_write=True, roots=[ROOT])}
    said = {code(cells[0])[0]: set(code(cells[1])) for cells in rows(page("mcp")) if code(cells[0])}
    assert said == served


def test_the_readme_names_the_tools_that_read() -> None:
    stated = re.search(r"Tools: `([^`]+)`", (ROOT / "README.md").read_text("utf-8"))
    assert stated is not None
    assert set(stated[1].split()) == {tool.name for tool in tools(_memory(), allow_write=False)}


def test_every_metric_is_documented_with_its_type_and_labels_and_no_other_is() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    topic = Topic("logs", 1, {}, 1, 1, 1.0, 1, 0.0, now, now, Watermark(1, 1, 1), 0)
    source = SourceInfo("a", "file", "logs", "following", 1, 1, counts={"dropped": 1})
    status = Status("0", True, "", None, 1, 1.0, None, (topic,), (source,), ())
    served = {}
    info = IndexInfo(
        "logs", "m", 3, "cosine", "exact", {}, 1, 1, 1, (), "ready", progress=Progress("embedding", 1, 2, 0.5, 2.0)
    )
    compared = Comparison(0.5, 0.2, 9, "recorded", {}, now)
    shadow = Shadow("logs", "n", "m", "ready", None, Progress("embedding", 1, 1, 0.5, None), compared, now, now)
    pipeline = Pipeline("p", "running", 1, None, None, (StepStatus("c", "classify", "llm"),), {}, now, now)
    told = Metrics().page(status, [dataclasses.replace(info, shadow=shadow)], [pipeline])
    for family in text_string_to_metric_families(told.decode()):
        if family.name.startswith("headwater_") and not family.name.endswith("_created"):
            name = family.name + ("_total" if family.type == "counter" else "")
            served[name] = (family.type, {label for s in family.samples for label in s.labels} - {"le"})
    said = {code(cells[0])[0]: (cells[1], set(code(cells[2]))) for cells in rows(page("metrics")) if code(cells[0])}
    assert said == served


# ---------------------------------------------------------------------- errors, verbs, query language


def _errors(root: type[HeadwaterError] = HeadwaterError) -> Iterator[type[HeadwaterError]]:
    yield root
    for child in root.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from _errors(child)


def _example(kind: type[HeadwaterError]) -> HeadwaterError:
    if kind is errors.QueryError:
        return errors.QueryError("bad", query="a", position=0, expected="b")
    return kind("what happened")


def test_every_error_is_documented_with_its_parent_status_and_exit_code_and_no_other_is() -> None:
    wanted = {}
    for kind in _errors():
        parent = kind.__base__.__name__ if kind is not HeadwaterError and kind.__base__ else ""
        error = _example(kind)
        wanted[kind.__name__] = (parent, str(problems.of(error).status_code), str(exit_code(error)))
    said = {
        code(cells[0])[0]: ("".join(code(cells[1])), cells[2], cells[3])
        for cells in rows(page("errors"))
        if code(cells[0]) and len(cells) == 5
    }
    assert said == wanted


def test_every_member_of_a_problem_is_documented() -> None:
    for name in problems.SCHEMA["properties"]:
        assert f"`{name}`" in page("errors")


def _verbs() -> dict[str, list[str]]:
    found = {n: f for n, f in inspect.getmembers(Verbs, inspect.isfunction) if not n.startswith("_")}
    return {n: [p for p in inspect.signature(f).parameters if p != "self"] for n, f in found.items()}


def test_every_verb_is_documented_with_its_parameters_and_no_other_is() -> None:
    said = {}
    for cells in rows(page("python")):
        for signature in code(cells[0]):
            if (found := re.fullmatch(r"(\w+)\((.*)\)", signature)) is not None:
                said[found[1]] = [p.strip(" *") for p in found[2].split(",") if p.strip(" *")]
    assert said == _verbs()


def test_every_operator_level_and_field_of_the_query_language_is_documented() -> None:
    text = page("query-language")
    for name in query.KNOWN_FIELDS:
        assert f"{name}:" in text, name
    for op in (*query.COMPARISONS, "=", "!=", "prefix", "!prefix"):
        assert f"`{op}`" in text, op
    levels = re.search(r"In order: (.*?)\. Other", text)
    assert levels is not None
    assert tuple(code(levels[1])) == query.LEVELS


def test_every_query_written_in_the_language_page_parses() -> None:
    table = page("query-language").partition("\n\n")[2].partition("Filters, phrases")[0]
    queries = [q for cells in rows(table) for q in code(cells[0])]
    assert len(queries) > 15
    for q in queries:
        if q not in ("phrase",):
            query.parse(q, now_ms=0)


def test_every_stage_of_a_dead_letter_is_documented_and_no_other_is() -> None:
    source = "\n".join(file.read_text("utf-8") for file in (ROOT / "platform").rglob("*.py"))
    stages = set(re.findall(r'(?:set_aside,? ?\(?|add_dead_letter\(|Letter\()[\w., ]*?(?:, )?"(\w+)"', source))
    said = page("records").partition("## Dead letters")[2].partition("Nothing waits")[0]
    assert set(code(said)) == stages


def test_every_name_the_package_exports_that_docs_use_is_there() -> None:
    for file in PAGES:
        for name in re.findall(r"\bheadwater\.([A-Za-z_]+)\(", file.read_text("utf-8")):
            assert name in headwater.__all__, f"{file.name}: headwater.{name}"


# ---------------------------------------------------------------------- architecture, dependencies


def test_every_module_named_in_the_architecture_page_exists() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    package = ROOT / "platform" / "headwater"
    named = {span for span in code(text) if re.fullmatch(r"[\w/]+(\.py|/)", span)}
    assert len(named) > 15
    for name in named:
        assert (package / name).exists() or (ROOT / name).exists(), name


def _licence_words(name: str) -> set[str]:
    """The licences that an installed distribution states, the BSD ones as one."""
    about = metadata.metadata(name)
    stated = [about["License-Expression"] or "", *(c for c in about.get_all("Classifier") or [] if "License" in c)]
    if not any(stated):
        stated = [str(about["License"] or "").split("\n")[0]]
    text = " ".join(stated).replace("Apache Software License", "Apache-2.0").replace("Mozilla Public License 2.0", "MPL-2.0")
    return _named(text)


def _named(text: str) -> set[str]:
    return {word for word in ("MIT", "BSD", "Apache-2.0", "MPL-2.0", "any-OSI") if word in text}


def test_every_dependency_has_its_reason_and_the_licence_its_package_states() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    named = {re.split(r"[<>=!~\[]", d)[0].strip().lower() for d in project["dependencies"]}
    table = (ROOT / "docs" / "dependencies.md").read_text("utf-8").partition("## ")[0]
    said: dict[str, str] = {}
    for cells in rows(table):
        packages = [p.strip() for p in cells[0].split(",")]
        licences = [part.strip() for part in cells[1].split(",")]
        if packages[0] != "package":
            said.update(zip(packages, licences * (len(packages) if len(licences) == 1 else 1), strict=True))
            assert len(cells) == 4, cells
            assert all(cells), cells
    assert set(said) == named
    for name, licence in said.items():
        assert _named(licence) == _licence_words(name) != set(), name


def test_every_extra_is_named_in_the_dependency_page() -> None:
    import tomllib

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    text = (ROOT / "docs" / "dependencies.md").read_text("utf-8")
    for name in extras:
        assert f"`{name}`" in text


def test_the_pinned_packages_under_the_mozilla_licence_are_those_named_and_none_is_under_the_gpl() -> None:
    pinned = re.findall(r"^([A-Za-z0-9._-]+)==", (ROOT / "requirements.lock").read_text("utf-8"), re.MULTILINE)
    text = (ROOT / "docs" / "dependencies.md").read_text("utf-8").partition("## Licences of the whole")[2]
    for name in pinned:
        try:
            stated = str(metadata.metadata(name).get_all("Classifier")) + str(metadata.metadata(name)["License-Expression"])
        except metadata.PackageNotFoundError:
            continue  # for another platform
        assert not re.search(r"\b[AL]?GPL|General Public", stated), name
        assert ("MPL" not in stated) or name in text, name


# ---------------------------------------------------------------------- all pages


def _anchors(file: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", prose(file.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("file", PAGES, ids=lambda f: str(f.relative_to(ROOT)))
def test_every_relative_link_resolves(file: Path) -> None:
    for target in _LINK.findall(prose(file.read_text("utf-8"))):
        if "://" in target or target.startswith("mailto:"):
            continue
        path, _, anchor = target.partition("#")
        there = (file.parent / path).resolve() if path else file
        assert there.exists(), target
        assert there.is_relative_to(ROOT), target
        if anchor:
            assert anchor in _anchors(there), target


def test_every_reference_page_is_in_its_index_and_the_readme_leads_there() -> None:
    linked = set(_LINK.findall((REFERENCE / "README.md").read_text("utf-8")))
    assert linked == {file.name for file in REFERENCE.glob("*.md")} - {"README.md"}
    assert "docs/reference/" in " ".join(_LINK.findall((ROOT / "README.md").read_text("utf-8")))


@pytest.mark.parametrize("file", [*PAGES, ROOT / "CHANGELOG.md"], ids=lambda f: str(f.relative_to(ROOT)))
def test_no_page_names_a_machine_path_or_a_package_host(file: Path) -> None:
    text = file.read_text("utf-8")
    assert not re.findall(r"(?<![\w.-])/(?:work|home|root|tmp|Users|mnt|opt)/\S*", text)
    hosts = re.findall(r"https?://([\w.-]+)", text)
    assert not [h for h in hosts if re.search(r"pypi|pythonhosted|crates\.io|npmjs|artifact|mirror|nexus", h)], hosts


def test_no_docstring_points_to_a_page_that_is_not_there() -> None:
    for folder in ("platform", "mcp_server"):
        for file in (ROOT / folder).rglob("*.py"):
            for name in re.findall(r"\bdocs/[a-z/-]+\.md\b", file.read_text("utf-8")):
                assert (ROOT / name).exists(), f"{file.name}: {name}"


def test_topic_settings_are_all_settable_by_the_names_documented() -> None:
    names = {name.removeprefix("topics.NAME.") for name, *_ in describe() if name.startswith("topics.")}
    assert names == {f.name for f in dataclasses.fields(TopicConfig)}
