"""`headwater config`: what the settings are, where each comes from, and a file to start with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from headwater.cli import output
from headwater.cli.session import Config, Json

_HELP = """Settings: show, validate, write.

Flags win over the environment (HEADWATER_SECTION_NAME), that over the file, that over the defaults.

\b
headwater config show
headwater config init headwater.toml
headwater config validate headwater.toml
"""
_TITLES = {
    "topics.NAME": "# [topics.logs]   # a topic, made at start",
    "sources[]": "# [[sources]]   # what the daemon follows",
    **{f"sources[{kind}]": f'# [[sources]]\n# type = "{kind}"' for kind in ("syslog", "otlp", "kafka", "nats")},
    "sources[webhook]": '# [[sources]]\n# type = "webhook"\n# name = "deploys"',
}
_NEEDED = {  # what has no default, with an example
    "sources[].path": '"app.log"', "sources[webhook].secret": '"${HEADWATER_KEY}"', "sources[kafka].topics": '["orders"]',
    "sources[nats].stream": '"ORDERS"',
}  # fmt: skip
group = typer.Typer(help=_HELP, no_args_is_help=True, rich_markup_mode=None)


def add(app: typer.Typer) -> None:
    app.add_typer(group, name="config")


@group.command()
def show(config: Config = None, json: Json = False) -> None:
    """Every setting with its value, where that comes from, and what it means. Secrets are masked.

    \b
    headwater config show
    HEADWATER_SERVER_PORT=9000 headwater config show --config headwater.toml
    """
    from headwater.config import describe, load, mask
    from headwater.source_settings import entry_name

    loaded = load(config)
    rows = []
    for name, kind, default, doc in describe():
        if name.startswith(("topics.", "sources[")):
            origin = "setting of a topic" if name.startswith("topics.") else "setting of a source"
            rows.append((name, mask(default), origin, kind, doc))
            continue
        value: Any = loaded.settings
        for part in name.split("."):
            value = getattr(value, part)
        if name == "data_dir" and not value:
            value = str(loaded.settings.path)
        rows.append((name, mask(value), loaded.origins.get(name, "default"), kind, doc))
    if json:
        output.show_json([dict(zip(("name", "value", "origin", "type", "doc"), row, strict=True)) for row in rows])
        return
    lines = ([name, _shown(value), output.line_of(origin), doc] for name, value, origin, _, doc in rows)
    output.show_table(("SETTING", "VALUE", "FROM", "MEANING"), lines)
    for name, topic in loaded.settings.topics.items():
        output.out(f"[topics.{name}] from {loaded.origins.get('topics', 'the file')}: passages {topic.passages}, "
                   f"{output.plural(topic.partitions, 'partition')}")  # fmt: skip
    for source in loaded.settings.sources:
        output.out(f"[[sources]] {output.line_of(entry_name(source))} into {source.topic or 'a topic by its name'}")


@group.command()
def validate(file: Annotated[Path, typer.Argument(metavar="FILE")]) -> None:
    """Check a settings file; the error says what is wrong and names the nearest known setting.

    \b
    headwater config validate headwater.toml
    """
    from headwater.config import load

    loaded = load(file)
    given = sum(origin.startswith("file") for origin in loaded.origins.values())
    output.say(f"{file} is valid: {output.plural(given, 'setting')}")


@group.command()
def init(
    file: Annotated[Path, typer.Argument(metavar="[FILE]")] = Path("headwater.toml"),
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
) -> None:
    """Write a settings file in which every setting stands, commented out, with its default. `-` writes to stdout.

    \b
    headwater config init headwater.toml
    """
    from headwater.errors import StorageError, UsageError

    text = template()
    if str(file) == "-":
        output.out(text.rstrip())
        return
    try:
        with file.open("w" if force else "x", encoding="utf-8") as handle:
            handle.write(text)
    except FileExistsError:
        raise UsageError(f"{file} is there already; --force writes over it") from None
    except OSError as error:
        raise StorageError(f"{file} cannot be written: {error.strerror}") from error
    output.say(f"wrote {file}; use it with `headwater up --config {file}`")


def template() -> str:
    """A settings file that changes nothing: every setting commented out, with its default and meaning."""
    from headwater.config import describe

    lines = [
        "# Settings of Headwater. What is not set here has the default shown; the environment (HEADWATER_SECTION_NAME) and",
        '# flags win over this file. A text may be a reference "${NAME}" to an environment variable; keys must be one.',
        "",
    ]
    section = ""
    for name, _, default, doc in describe():
        head, _, last = name.rpartition(".")
        if head != section:
            section = head
            lines += ["", _TITLES.get(head, f"[{head}]")]
        lines += [f"# {doc}", f"# {last} = {_NEEDED.get(name) or _toml(last, default)}"]
    return "\n".join(lines) + "\n"


def _toml(name: str, default: Any) -> str:
    import json

    if default is None:
        return '"${HEADWATER_KEY}"' if name == "api_key" else '""'
    if isinstance(default, tuple):
        return json.dumps(list(default))
    return json.dumps(default)


def _shown(value: Any) -> str:
    if value is None or value == "" or value == ():
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    return output.line_of(",".join(value) if isinstance(value, tuple) else str(value))
