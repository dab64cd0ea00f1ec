"""Rows B13 to B15 of Backdoor AI: trained elsewhere through one folder, on a small host, with secrets that stay so."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from phones import INTENTS, Phones

System = Any
LayDown = Callable[[str], AbstractContextManager[System]]


def ended(backdoor: System, path: Path) -> dict[str, Any]:
    """Wait until a trigger file says how it ended."""

    def over() -> Any:
        try:
            said = json.loads(path.read_text())
        except ValueError:
            return None
        return said if said.get("status") in ("completed", "failed") else None

    return dict(backdoor.wait(over, f"{path.name} is answered"))


# B13 and B14


class Worker:
    """`evergreen worker` on another machine: another folder, nothing in common but the store."""

    def __init__(self, store: str, home: Path, env: dict[str, str]) -> None:
        home.mkdir(exist_ok=True)
        program = Path(sys.executable).with_name("evergreen")
        self.log = home / "worker.log"
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                [program, "worker", store, "--once", "--poll", "0.2", "--name", "borrowed"],
                cwd=home, stdout=out, stderr=out, env=env,
            )  # fmt: skip


def test_B13_and_B14_trained_elsewhere_through_one_folder_and_served_without_a_restart(
    lay_down: LayDown, tmp_path: Path
) -> None:
    with lay_down("backdoor") as laid:
        store = (tmp_path / "shared").as_uri()
        laid.env["EVERGREEN_STORE"] = store
        laid.edit('use = "folder"', 'use = "folder"\npoll = "0.3s"\nbeat = "1s"')
        laid.edit("min_new = 100 ", "auto = false\nmin_new = 100 ")
        laid.edit('use = "intent"', 'use = "intent"\nmodel = "linear"')
        laid.up()
        pid = laid.process.pid
        laid.learn(Phones(130).batch(120, device=0))
        said = laid.script("app_trigger_training.py", "--reason", "through the folder")
        path = laid.folder / said.split()[-1]
        waiting = laid.wait(
            lambda: (found := json.loads(path.read_text()))["status"] == "processing" and found, "it waits for a worker"
        )
        assert waiting["message"]
        worker = Worker(store, tmp_path / "elsewhere", {**os.environ, "NO_COLOR": "1"})
        try:
            answer = ended(laid, path)
        finally:
            if worker.process.poll() is None:
                worker.process.wait(60)
        assert answer["status"] == "completed", (answer, worker.log.read_text())
        version = laid.newest()
        assert version == answer["model_info"]["version"]
        assert laid.process.pid == pid
        assert laid.post("/api/intent/predict", {"text": Phones(131).text(INTENTS[0])}).status_code == 200
        assert laid.http.get(laid.get("/api/ai/latest-model")["modelDownloadURL"]).status_code == 200
        status = json.loads(laid.script("colab_integration/get_training_status.py", "--json"))
        assert status["model"]["version"] == version
        assert not (laid.home / ".evergreen/store").exists()


def test_B14_and_B15_the_same_through_a_bucket_and_the_host_stays_small(lay_down: LayDown, tmp_path: Path) -> None:
    pytest.importorskip("boto3")
    sys.path.append(str(Path(__file__).parents[1] / "backends"))
    from s3_server import BUCKET, ENVIRONMENT, s3_server

    with s3_server() as endpoint, lay_down("backdoor") as laid:
        store = f"s3://{BUCKET}/backdoor"
        laid.env |= {**ENVIRONMENT, "AWS_ENDPOINT_URL_S3": endpoint, "EVERGREEN_STORE": store}
        laid.edit('use = "folder"', 'use = "folder"\npoll = "0.5s"\nbeat = "1s"')
        laid.edit("min_new = 100 ", "auto = false\nmin_new = 100 ")
        laid.edit('use = "intent"', 'use = "intent"\nmodel = "linear"')
        laid.up()
        laid.learn(Phones(140).batch(120, device=0))
        file = laid.script("app_trigger_training.py", "--reason", "through a bucket").split()[-1]
        worker = Worker(store, tmp_path / "elsewhere", {**os.environ, **laid.env, "NO_COLOR": "1"})

        def answered() -> Any:
            said = json.loads(laid.script("colab_integration/get_training_status.py", "--json"))
            trigger = next(t for t in said["triggers"] if t["file"] == file)
            return (said, trigger) if trigger["status"] in ("completed", "failed") else None

        try:
            said, trigger = laid.wait(answered, "the trigger is answered")
        finally:
            if worker.process.poll() is None:
                worker.process.wait(60)
        assert trigger["status"] == "completed", (trigger, worker.log.read_text())
        assert (
            said["model"]["version"] == trigger["model_info"]["version"] == laid.newest()
        )  # nothing to wait for any more
        assert laid.http.get(laid.get("/api/ai/latest-model")["modelDownloadURL"]).status_code == 200
        assert laid.post("/api/intent/predict", {"text": Phones(141).text(INTENTS[0])}).status_code == 200
        resident, proportional = memory_mb(laid.process.pid)
        print(f"resident {resident:.0f} MB, proportional {proportional:.0f} MB")
        assert resident < 200


# B15


def memory_mb(pid: int) -> tuple[float, float]:
    """Return what a process and its children hold: resident, and without what is shared counted twice."""
    rss = pss = 0.0
    process = psutil.Process(pid)
    for one in [process, *process.children(recursive=True)]:
        about = one.memory_full_info()
        rss += about.rss / 1e6
        pss += about.pss / 1e6
    return rss, pss


def test_B15_it_fits_a_small_host_while_serving(lay_down: LayDown, backdoor: System) -> None:
    """The model was trained elsewhere: this server has not trained, as on the small host."""
    with lay_down("backdoor") as laid:
        laid.process = None
        project, trained = backdoor.home / ".evergreen", laid.home / ".evergreen"
        subprocess.run(["cp", "-r", project, trained], check=True)
        laid.edit("min_new = 100 ", "auto = false\nmin_new = 100 ")
        laid.up()
        peak = [0.0, 0.0]
        stop = threading.Event()

        def load(seed: int) -> None:
            phones = Phones(seed)
            with httpx.Client(timeout=300, base_url=laid.url) as http:
                while not stop.is_set():
                    assert http.post("/api/intent/predict", json={"text": phones.text("weather")}).status_code == 200
                    assert http.post("/api/ai/learn", json=phones.batch(10)).status_code == 200
                    url = http.get("/api/ai/latest-model").json()["modelDownloadURL"]
                    assert http.get(url).status_code == 200
                    assert http.get("/api/ai/stats").status_code == 200

        threads = [threading.Thread(target=load, args=(151 + n,)) for n in range(3)]
        for thread in threads:
            thread.start()
        for _ in range(40):
            time.sleep(0.1)
            peak = [max(a, b) for a, b in zip(peak, memory_mb(laid.process.pid), strict=True)]
        stop.set()
        for thread in threads:
            thread.join()
        print(f"resident {peak[0]:.0f} MB, proportional {peak[1]:.0f} MB")
        assert peak[0] < 200
        assert peak[1] < 200


# Secrets


def test_no_secret_is_written_or_printed(lay_down: LayDown, tmp_path: Path) -> None:
    secrets = {
        "EVERGREEN_PSEUDONYM_KEY": "SECRET-PSEUDONYM", "DROPBOX_APP_SECRET": "SECRET-APP", "DROPBOX_REFRESH_TOKEN": "SECRET-TOKEN",
        "AWS_SECRET_ACCESS_KEY": "SECRET-AWS",
    }  # fmt: skip
    with lay_down("backdoor") as laid:
        laid.env |= {**secrets, "EVERGREEN_STORE": (tmp_path / "shared").as_uri()}
        laid.up()
        laid.learn(Phones(160).batch(3, device=0))
        said = laid.script("app_trigger_training.py") + laid.script(
            "colab_integration/get_training_status.py", "--json"
        )
        said += laid.run("status", "intent", "--json") + laid.http.get(laid.url + "/admin/training").text
        with closing(laid.open().ledger) as ledger:
            (subject,) = {sample.subject for sample in ledger.samples("intent")}
        for place in (laid.home, tmp_path):
            for path in place.rglob("*"):
                if path.is_file():
                    said += path.read_bytes().decode("latin-1")
        assert not [secret for secret in secrets.values() if secret in said]
        laid.kill()
        laid.up()  # the same key, the same pseudonym
        laid.learn(Phones(160).batch(6, device=0))
        with closing(laid.open().ledger) as ledger:
            assert {sample.subject for sample in ledger.samples("intent")} == {subject}
