"""What the pages name exists: files, headings, settings, plugins, commands, options, variables, paths, roles."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import typer.main
from pages import DOCS, PAGES, ROOT, anchors, blocks, links, name, words
from pydantic import BaseModel

from evergreen.cli.app import app
from evergreen.core import config, plugins
from evergreen.core.config import Config, LoopConfig, Use
from evergreen.http.auth import Role
from evergreen.http.endpoints import ENDPOINTS
from evergreen.stages.gate.judge import MOVES

#: Blocks that are run, read or shown; another language would be looked at by nobody.
LANGUAGES = {"bash", "python", "toml", "json", "text", "mermaid", "ini", "nginx"}
SOURCE = "\n".join(p.read_text(encoding="utf-8") for p in (ROOT / "src").rglob("*.py"))
BUILT = {"site/", "benchmarks/results/", "data/"}
each_page = pytest.mark.parametrize("page", PAGES, ids=name)


@each_page
def test_every_block_is_of_a_kind_that_is_looked_at(page: Path) -> None:
    assert {b.language for b in blocks(page)} <= LANGUAGES


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


@each_page
def test_toml_is_read_as_settings(page: Path) -> None:
    for block in blocks(page):
        if block.language != "toml":
            continue
        raw = tomllib.loads(block.text)
        for loop in raw.get("loops", {}).values():
            loop.setdefault("recipe", {"use": "tabular", "target": "label"})
        for group, use in _uses(config.parse(raw, str(block))):
            if ":" not in use.use:  # one of the page's own is built where the page is run
                plugins.load(group, use.use).Options(**use.options)


def _uses(parsed: Config) -> Iterator[tuple[str, Use]]:
    yield from (("ledgers", parsed.ledger), ("stores", parsed.store))
    yield from (("doors", use) for use in parsed.doors)
    for loop in parsed.loops.values():
        yield from (("recipes", loop.recipe), ("runners", loop.runner))
        yield from (("sources", use) for use in loop.collect.sources)


@each_page
def test_json_is_json(page: Path) -> None:
    for block in blocks(page):
        if block.language == "json":
            json.loads(block.text)


def _tables() -> Mapping[str, type[BaseModel]]:
    """Return the tables of evergreen.toml by the names under which pages speak of them."""
    found: dict[str, type[BaseModel]] = {"http": config.HttpConfig}
    for key, field in LoopConfig.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, config.Section):
            found[key] = field.annotation
    return found


@each_page
def test_settings_exist(page: Path) -> None:
    tables = _tables()
    for word in words(page):
        if match := re.fullmatch(r"(\w+)\.(\w+)", word):
            table, key = match.groups()
            if table in tables:
                assert key in tables[table].model_fields, word
        if match := re.fullmatch(r"\[(?:loops\.\w+\.)?([\w.]+)\]", word):
            first, _, rest = match[1].partition(".")
            assert first in tables or first == "recipe", word
            if first == "recipe" and rest:
                assert rest in plugins.load("recipes", "tabular").Options.model_fields, word


def _commands(command: Any, path: str = "evergreen") -> Iterator[tuple[str, set[str]]]:
    inner = getattr(command, "commands", None)
    for key, sub in (inner or {}).items():
        yield from _commands(sub, f"{path} {key}")
    yield path, {option for p in command.params for option in (*p.opts, *p.secondary_opts)} | {"--help"}


@each_page
def test_commands_and_options_exist(page: Path) -> None:
    known = dict(_commands(typer.main.get_command(app)))
    shown = [line for b in blocks(page) if b.language in ("bash", "text") for line in b.text.splitlines()]
    for line in [*words(page), *shown]:
        for said in re.findall(r"(?:^|[(|&;/] ?)(evergreen [a-z][^|&;)#]*)", line):
            parts = said.split()
            path = " ".join(parts[:3]) if " ".join(parts[:3]) in known else " ".join(parts[:2])
            assert path in known, line
            for option in re.findall(r"(?<=\s)--?[a-z][\w-]*", re.sub(r"\"[^\"]*\"", "", said)):
                assert option in known[path], f"{path} has no {option}: {line}"


@each_page
def test_variables_exist(page: Path) -> None:
    for variable in set(re.findall(r"EVERGREEN_\w+", page.read_text(encoding="utf-8"))):
        assert variable in SOURCE, variable


@each_page
def test_make_targets_exist(page: Path) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    for word in words(page):
        if match := re.fullmatch(r"make ([a-z-]+)", word):
            assert match[1] in targets, word


@each_page
def test_paths_of_the_repository_exist(page: Path) -> None:
    for word in words(page):
        if re.fullmatch(r"(src|docs|tests|tools|benchmarks)(/[\w.-]+)*/?|[A-Z]+\.md", word) and word not in BUILT:
            assert (ROOT / word).exists(), word


@each_page
def test_modules_exist(page: Path) -> None:
    for word in words(page):
        if re.fullmatch(r"evergreen(\.\w+)+", word) and not word.endswith((".toml", ".service")):
            place = ROOT / "src" / word.replace(".", "/")
            assert place.with_suffix(".py").exists() or place.is_dir(), word


def test_endpoints_and_their_roles_are_told() -> None:
    page = (DOCS / "howto" / "client.md").read_text(encoding="utf-8")
    told = dict(re.findall(r"^\| `((?:GET|POST) \S+)` \| (`\w+`|–) \|", page, re.MULTILINE))
    roles = {f"{e.method} {e.path}": "–" if e.role is Role.NONE else f"`{e.role.name.lower()}`" for e in ENDPOINTS}
    also = "GET /api/{loop}/training/status"
    assert f"also as `{also}`" in page
    assert told == {path: role for path, role in roles.items() if path != also}


def test_roles_are_told() -> None:
    page = (DOCS / "howto" / "operate.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE) == [r.name.lower() for r in Role if r is not Role.NONE]


def test_plugins_are_told() -> None:
    """The README lists every plugin there is, and no other."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for group in plugins.GROUPS:
        kind = group[:-1]
        row = re.search(rf"^\| {kind} \| (.+) \|$", text, re.MULTILINE)
        assert row, kind
        assert set(re.findall(r"`(\w+)`", row[1])) == set(plugins.names(group)), kind


def test_verdicts_are_told() -> None:
    text = (DOCS / "concepts.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| .+ \| `(\w+)` \|$", text, re.MULTILINE)
    assert dict(rows) == {k: str(v) for k, v in MOVES.items()}


def test_every_page_is_in_the_menu() -> None:
    menu = set(re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8")))
    assert menu == {p.relative_to(DOCS).as_posix() for p in DOCS.rglob("*.md")}


def test_the_pages_are_built(tmp_path: Path) -> None:
    """mkdocs finds nothing to complain of."""
    pytest.importorskip("material", reason="mkdocs-material is not installed")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Lay a project down" in (tmp_path / "site" / "quickstart" / "index.html").read_text(encoding="utf-8")
