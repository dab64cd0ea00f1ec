"""Workers on borrowed machines: the notebook and the `colab` command, run as a person runs them."""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import nbformat
import pytest
from cli_kit import Run

from evergreen.core.errors import ConfigError
from evergreen.job.far import session

SECRETS = {"DROPBOX_APP_KEY": "k-1", "DROPBOX_APP_SECRET": "s-2", "DROPBOX_REFRESH_TOKEN": "t-3"}


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EVERGREEN_STORE", "")
    monkeypatch.delenv("EVERGREEN_STORE")
    for url in ("dropbox:///a", "gdrive:///a", "s3://a"):
        for name in session.names(url):
            monkeypatch.setenv(name, "so that it is gone again afterwards, whatever the code under test sets")
            monkeypatch.delenv(name)


# --- The notebook as a file -----------------------------------------------------------------------------------


def test_the_notebook_is_one_and_says_what_it_needs(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    said = run("notebook", "dropbox:///my-app", "--hours", "3", "--stay")
    assert said.code == 0
    assert "DROPBOX_REFRESH_TOKEN" in said.out
    text = (tmp_path / "evergreen_worker.ipynb").read_text()
    book = nbformat.reads(text, as_version=4)
    nbformat.validate(book)
    assert book.metadata.colab.gpuType == "T4"
    (parameters,) = [c.source for c in book.cells if c.metadata.get("tags") == ["parameters"]]
    given: dict[str, Any] = {}
    exec(parameters, given)
    assert (given["STORE_URL"], given["HOURS"], given["ONCE"]) == ("dropbox:///my-app", 3.0, False)
    assert given["PACKAGE"].startswith("evergreen-ml[dropbox,intent,tabular]==")
    assert not any(value in text for value in SECRETS.values())
    assert "drive.mount" not in text


def test_it_writes_over_nothing_unless_told(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.ipynb").write_text("mine")
    said = run("notebook", "s3://bucket", "--out", "mine.ipynb")
    assert (said.code, (tmp_path / "mine.ipynb").read_text()) == (1, "mine")
    assert run("notebook", "s3://bucket", "--out", "mine.ipynb", "--force").code == 0


def test_it_asks_which_folder(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    said = run("notebook")
    assert said.code == 2
    assert "STORE_URL" in said.err
    monkeypatch.setenv("EVERGREEN_STORE", "gdrive:///app")
    assert run("notebook").code == 0
    assert "gdrive:///app" in (tmp_path / "evergreen_worker.ipynb").read_text()


# --- Secrets --------------------------------------------------------------------------------------------------


def colab_that_keeps(monkeypatch: pytest.MonkeyPatch, kept: Mapping[str, str]) -> None:
    """Stand in for google.colab: `userdata.get` raises for what is not there, as Colab's own does."""

    def get(name: str) -> str:
        if name not in kept:
            raise RuntimeError(f"SecretNotFoundError: {name}")
        return kept[name]

    colab, userdata = ModuleType("google.colab"), ModuleType("google.colab.userdata")
    userdata.get = get  # type: ignore[attr-defined]
    colab.userdata = userdata  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "google.colab", colab)
    monkeypatch.setitem(sys.modules, "google.colab.userdata", userdata)


def test_secrets_come_from_the_notebook_and_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    colab_that_keeps(monkeypatch, SECRETS)
    monkeypatch.setenv("DROPBOX_APP_KEY", "mine")
    said: list[str] = []
    session.secrets("dropbox:///app", said.append)
    assert {name: os.environ[name] for name in SECRETS} == {**SECRETS, "DROPBOX_APP_KEY": "mine"}
    assert not any(value in line for line in said for value in SECRETS.values())


def test_a_secret_that_is_missing_is_named_with_the_place_to_put_it(monkeypatch: pytest.MonkeyPatch) -> None:
    colab_that_keeps(monkeypatch, {"DROPBOX_APP_KEY": "k"})
    with pytest.raises(ConfigError, match="DROPBOX_APP_SECRET, DROPBOX_REFRESH_TOKEN") as e:
        session.secrets("dropbox:///app")
    assert "Notebook access" in (e.value.hint or "")


def test_one_whole_group_of_secrets_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    colab_that_keeps(monkeypatch, {"GOOGLE_SERVICE_ACCOUNT": "{}", "GOOGLE_CLIENT_ID": "half"})
    said: list[str] = []
    session.secrets("gdrive:///app", said.append)
    assert said == ["Found GOOGLE_SERVICE_ACCOUNT (their values are not shown)."]


def test_a_local_folder_needs_none() -> None:
    said: list[str] = []
    session.secrets("/mnt/shared", said.append)
    assert said == ["This store needs no secrets."]


def test_the_card_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    said: list[str] = []
    assert session.machine(said.append) is None
    stand_in(tmp_path, "nvidia-smi", "print('Tesla T4, 15360 MiB')")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert session.machine(said.append) == "Tesla T4"
    assert "No graphics card" in said[0]
    assert said[1] == "Graphics card: Tesla T4, 15360 MiB."


# --- The command `colab` --------------------------------------------------------------------------------------


def stand_in(folder: Path, name: str, body: str) -> None:
    """Put a program of that name into a folder."""
    file = folder / name
    file.write_text(f"#!{sys.executable}\n{body}\n")
    file.chmod(0o755)


COLAB = """
import json, os, stat, sys
script = sys.argv[-1]
said = {
    "argv": sys.argv[1:], "text": open(script).read(), "folder": stat.S_IMODE(os.stat(os.path.dirname(script)).st_mode),
}
open(os.environ["SEEN"], "w").write(json.dumps(said))
compile(said["text"], script, "exec")
sys.exit(int(os.environ.get("COLAB_ENDS", "0")))
"""


@pytest.fixture
def seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for google-colab-cli on the path; returns where it writes what it was given."""
    (tmp_path / "bin").mkdir()
    stand_in(tmp_path / "bin", "colab", COLAB)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("SEEN", str(tmp_path / "seen.json"))
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    return tmp_path / "seen.json"


def test_colab_is_given_a_script_a_card_and_time(run: Run, seen: Path) -> None:
    assert run("colab", "dropbox:///my-app", "--hours", "2").code == 0
    said = json.loads(seen.read_text())
    assert said["argv"][:-1] == ["run", "--gpu", "T4", "--timeout", "7200"]
    assert not any(value in word for word in said["argv"] for value in SECRETS.values())  # others can read those
    assert said["folder"] == stat.S_IRWXU
    assert "attend('dropbox:///my-app', once=True, hours=2.0" in said["text"]
    assert all(value in said["text"] for value in SECRETS.values())
    assert not Path(said["argv"][-1]).exists()


def test_colab_that_fails_is_told(run: Run, seen: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLAB_ENDS", "3")
    said = run("colab", "dropbox:///my-app", "--gpu", "none")
    assert said.code == 1
    assert "ended with 3" in said.err
    assert json.loads(seen.read_text())["argv"][:2] == ["run", "--timeout"]


def test_without_colab_it_says_how_to_get_it(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    said = run("colab", "dropbox:///my-app")
    assert said.code == 2
    assert "google-colab-cli" in said.err
