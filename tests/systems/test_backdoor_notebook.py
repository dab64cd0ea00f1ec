"""Row B8 of Backdoor AI: its notebook, run from top to bottom as Colab would, beside an app that shares a folder with it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from phones import Phones

from evergreen.templates.backdoor import notebook

FILE = Path(notebook.__file__).parent / "files" / "colab_integration" / "backdoor_ai_trainer.ipynb"
#: Stands in for Colab's own package: secrets come from a file that no cell of the notebook names.
USERDATA = """
import json, os

class SecretNotFoundError(Exception): ...

def get(name):
    kept = json.load(open(os.environ["COLAB_KEEPS"]))
    if name not in kept:
        raise SecretNotFoundError(name)
    return kept[name]
"""

System = Any
LayDown = Callable[[str], AbstractContextManager[System]]


@pytest.fixture
def colab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Colab of one's own; returns the file of its secrets."""
    place = tmp_path / "colab" / "google" / "colab"
    place.mkdir(parents=True)
    (place / "__init__.py").write_text("")
    (place / "userdata.py").write_text(USERDATA)
    (tmp_path / "secrets.json").write_text("{}")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "colab"))
    monkeypatch.setenv("COLAB_KEEPS", str(tmp_path / "secrets.json"))
    for name in [name for name in os.environ if name.startswith(("EVERGREEN_STORE", "DROPBOX_"))]:
        monkeypatch.delenv(name)
    return tmp_path / "secrets.json"


@pytest.fixture(scope="module")
def app(lay_down: LayDown, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """An app that trains nowhere but through the folder."""
    with lay_down("backdoor") as laid:
        laid.env["EVERGREEN_STORE"] = f"file://{tmp_path_factory.mktemp('cloud')}"
        laid.edit('use = "folder" ', 'use = "folder"\nbeat = "1s"\npoll = "0.5s" ')
        laid.edit('use = "intent"', 'use = "intent"\nmodel = "linear"\ncoreml = false')
        laid.up()
        yield laid


def execute(folder: Path, **parameters: Any) -> str:
    """Run the notebook with other parameters, as tools that know the tag do; return all that it printed."""
    book = nbformat.read(FILE, as_version=4)
    (cell,) = [cell for cell in book.cells if cell.metadata.get("tags") == ["parameters"]]
    cell.source += "\n" + "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
    NotebookClient(book, timeout=300, startup_timeout=180, resources={"metadata": {"path": str(folder)}}).execute()
    nbformat.validate(book)
    outputs = [out for cell in book.cells if cell.cell_type == "code" for out in cell.outputs]
    return "".join(str(out.get("text", "")) for out in outputs)


def test_B8_the_file_is_what_the_package_makes() -> None:
    assert FILE.read_text(encoding="utf-8") == notebook.text(), "run: make reference"


def test_B8_without_secrets_it_says_where_to_put_them(colab: Path, tmp_path: Path) -> None:
    with pytest.raises(CellExecutionError, match="EVERGREEN_STORE"):
        execute(tmp_path)
    colab.write_text(json.dumps({"EVERGREEN_STORE": "dropbox:///backdoor", "DROPBOX_APP_KEY": "hidden-key"}))
    with pytest.raises(CellExecutionError, match="DROPBOX_APP_SECRET, DROPBOX_REFRESH_TOKEN") as e:
        execute(tmp_path)
    assert "hidden-key" not in str(e.value)


def test_B8_from_top_to_bottom(app: System, colab: Path, tmp_path: Path) -> None:
    colab.write_text(json.dumps({"EVERGREEN_STORE": app.env["EVERGREEN_STORE"]}))

    # Nothing has come yet: nothing is done.
    app.wait((app.folder / "backdoor" / "state.json").exists, "the app has told of itself")
    said = execute(tmp_path, WAIT=0.05)
    assert "Nothing calls for a training" in said
    assert "No training waited" in said

    # A trigger file waits: it is taken.
    phones = Phones(31)
    for device in range(4):
        app.learn(phones.batch(20, device=device))
    app.script("app_trigger_training.py", "--reason", "for the notebook", "--force")
    said = execute(tmp_path, WAIT=3.0)
    print(said)
    assert "trigger file(s) wait" in said
    assert "trained, and the model is in the folder" in said
    assert "completed" in said
    (trigger,) = app.triggers()
    assert (trigger["status"], trigger["reason"]) == ("completed", "for the notebook")
    first = app.wait(app.newest, "the app serves what the notebook trained")
    assert f"Newest version: {first}" in said
    answer = app.post("/api/intent/predict", {"text": "play some jazz"}).json()
    assert answer["output"]["intent"] == "play_music"

    # Too little has come for the thresholds, but the person at the notebook wants it.
    for device in range(4):
        app.learn(phones.batch(20, device=device))
    said = execute(tmp_path, WAIT=3.0, FORCE=True)
    assert "trained, and the model is in the folder" in said
    print(said, app.triggers())
    assert [trigger["status"] for trigger in app.triggers()] == ["completed", "completed"]
