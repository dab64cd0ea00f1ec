"""What stands in the rooms of recipes and backends is what pyproject.toml declares, and each can be found by name."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from evergreen.core import plugins

ROOT = Path(__file__).resolve().parent.parent
SRC = ROOT / "src"
ROOMS = {
    "recipes": "recipes",
    "ledgers": "backends/ledger",
    "stores": "backends/store",
    "runners": "backends/runner",
    "sources": "backends/source",
    "formats": "backends/format",
    "doors": "templates",
    "subscribers": "backends/subscriber",
}
DECLARED: dict[str, dict[str, str]] = {
    group.removeprefix("evergreen."): dict(names)
    for group, names in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"].items()
}


def residents(room: str) -> set[str]:
    """Name the modules and packages of a room."""
    folder = SRC / "evergreen" / room
    return {
        path.stem
        for path in folder.iterdir()
        if (path.suffix == ".py" and path.name != "__init__.py") or (path / "__init__.py").exists()
    }


def test_every_group_has_a_room() -> None:
    assert set(DECLARED) == set(ROOMS) == set(plugins.GROUPS)


@pytest.mark.parametrize("group", ROOMS)
def test_a_room_holds_what_is_declared(group: str) -> None:
    place = "evergreen." + ROOMS[group].replace("/", ".")
    homes = {
        target.partition(":")[0].removeprefix(place + ".").partition(".")[0] for target in DECLARED[group].values()
    }
    assert residents(ROOMS[group]) == homes


@pytest.mark.parametrize(("group", "name"), [(g, n) for g, names in DECLARED.items() for n in names])
def test_what_is_declared_can_be_loaded_and_has_options(group: str, name: str) -> None:
    made = plugins.load(group, name)
    assert made.Options.model_config["extra"] == "forbid"
    assert (made.__doc__ or "").strip()
    for key, setting in made.Options.model_fields.items():
        assert setting.description, f"{group} {name}: setting {key} has no sentence of help"
