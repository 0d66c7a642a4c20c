"""The docs as a whole: every page has its place, the pages made from the code are what the code says, the site builds, promises
name their proofs, and there is a how-to for each source, provider and agent's client."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import pytest
import yaml

from headwater.source_settings import SourceKind

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md"))


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    """docs/reference/generate.py."""
    spec = importlib.util.spec_from_file_location("generate", DOCS / "reference" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_pages_made_from_the_code_are_what_the_code_says(generate: ModuleType) -> None:
    for name, made in generate.PAGES.items():
        assert (DOCS / name).read_text("utf-8") == made(), f"docs/{name} is not what the code says; run `make reference`"


def test_llms_txt_lists_every_page_once_with_a_line_about_it() -> None:
    text = (DOCS / "llms.txt").read_text("utf-8")
    assert re.match(r"# Headwater\n\n> \S.*\n", text)
    listed = re.findall(r"^- \[[^\]]+\]\(([^)]+)\): \S.{15,}$", text, re.MULTILINE)
    assert sorted(listed) == PAGES
    assert len(re.findall(r"^- ", text, re.MULTILINE)) == len(listed)


def _nav(entries: Any) -> list[str]:
    if isinstance(entries, str):
        return [entries]
    inner = entries.values() if isinstance(entries, dict) else entries
    return [page for one in inner for page in _nav(one)]


def test_every_page_has_its_place_in_the_site() -> None:
    site = yaml.safe_load((DOCS / "site" / "mkdocs.yml").read_text("utf-8"))
    assert sorted(_nav(site["nav"])) == PAGES


class _Outside(HTMLParser):
    """What a page loads from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [v for k, v in attrs if k in ("src", "href") and tag != "a" and v and re.match(r"(https?:)?//", v)]


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("mkdocs") is None, reason="needs mkdocs (extra `docs`)")
def test_the_site_builds_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "-f",
        str(DOCS / "site" / "mkdocs.yml"),
        "-d",
        str(tmp_path / "site"),
    ]
    built = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert built.returncode == 0, built.stderr
    assert "WARNING" not in built.stderr
    for page in (tmp_path / "site").rglob("*.html"):
        outside = _Outside()
        outside.feed(page.read_text("utf-8"))
        assert not outside.found, f"{page.name}: {outside.found}"
    assert (tmp_path / "site" / "llms.txt").exists()
    assert not list((tmp_path / "site").rglob("mkdocs.yml"))


# ---------------------------------------------------------------------- promises


def test_every_proof_of_a_promise_is_a_test_there_is() -> None:
    text = (DOCS / "guarantees.md").read_text("utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ") and "::" in line]
    assert len(rows) >= 20
    for row in rows:
        for file, name in re.findall(r"`(test_\w+\.py)::(\w+)`", row):
            tree = ast.parse((ROOT / "tests" / file).read_text("utf-8"))
            assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}, (
                name
            )


# ---------------------------------------------------------------------- how-tos


def _how_tos(*names: str) -> str:
    return "\n".join((DOCS / "how-to" / f"{name}.md").read_text("utf-8") for name in names)


def test_there_is_a_how_to_for_every_kind_of_source() -> None:
    text = _how_tos(*(path.stem for path in (DOCS / "how-to").glob("*.md")))
    for kind in get_args(SourceKind):
        assert kind == "path" or f'type = "{kind}"' in text, kind
    for kind in ("github", "slack", "generic"):
        assert f'kind = "{kind}"' in text, kind


def test_the_how_tos_of_models_name_every_provider() -> None:
    from headwater.embed.lookup import NAMES
    from headwater.llm.lookup import PROVIDERS

    for provider in PROVIDERS:
        assert f"`{provider}`" in _how_tos("chat-models"), provider
    for name in NAMES:
        assert f"`{name.split(':')[0]}" in _how_tos("embedding-models"), name


def test_the_how_to_of_agents_names_every_client() -> None:
    from headwater_mcp.install import CLIENTS

    for client in CLIENTS:
        assert f"--client {client}" in _how_tos("agents"), client


def test_every_how_to_is_short_and_has_something_to_type() -> None:
    for path in (DOCS / "how-to").glob("*.md"):
        text = path.read_text("utf-8")
        assert "```" in text, path.name
        assert len(text.split()) < 700, path.name
