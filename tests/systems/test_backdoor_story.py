"""Backdoor AI trained far away, all of it at once: late views of one folder, a machine asleep, one killed, a zombie, a phone."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "protocol"))

from far_kit import HERE, Gate, Machine, lines
from phones import INTENTS, Phones, onnx_model

from evergreen.backends.format.coreml import CoremlFormat
from evergreen.recipes.intent import Intent, IntentOptions

System = Any
LayDown = Callable[[str], AbstractContextManager[System]]
STEPS = 40


def test_the_whole_story(lay_down: LayDown, tmp_path: Path) -> None:
    log, machines, gate = tmp_path / "steps.jsonl", {}, Gate(tmp_path / "gate.json")
    gate.let(first=12, second=22, third=33)  # however slow or fast a machine is, it is half-way when something happens
    url = f"lagging:LaggingStore://{tmp_path}/shared?lag_s=0.5&seed=11"

    def machine(name: str) -> Machine:
        """Let a worker come, with a view of its own of the folder."""
        machines[name] = Machine(name, tmp_path / name, url, "--poll", "0.2", "--name", name)
        return machines[name]

    def steps_by(name: str) -> list[int]:
        return [line["step"] for line in lines(log) if line["by"] == name]

    with lay_down("backdoor") as app:
        app.env |= {"EVERGREEN_STORE": url, "EVERGREEN_VIEW": "app", "PYTHONPATH": str(HERE)}
        app.edit('use = "folder" ', 'use = "folder"\nbeat = "300ms"\npoll = "200ms"\nlease = "6s" ')
        app.edit(
            "[loops.intent.collect]",
            "[loops.intent]\nretries = 20  # on a busy machine a worker may be silent for long\n\n[loops.intent.collect]",
        )
        app.edit(
            'use = "intent"',
            f'use = "far_intent:PatientIntent"\nmodel = "linear"\nsteps = {STEPS}\nlog = "{log}"\ngate = "{gate.path}"',
        )
        app.up()
        try:
            # Three models from phones wait: that is one too many. Nobody asked.
            phones = Phones(77)
            for device in range(4):
                app.learn(phones.batch(24, device=device))
            for n in range(3):
                labels = INTENTS if n else INTENTS[:3]
                with onnx_model(tmp_path / f"{n}.onnx", seed=n, labels=labels).open("rb") as file:
                    sent = app.http.post(
                        f"{app.url}/api/ai/upload-model", files={"model": file}, data={"deviceId": f"D{n}"}
                    )
                assert sent.status_code == 200, sent.text

            # The first machine falls asleep, the second is killed, the third goes on.
            first = machine("first")
            app.wait(lambda: "is in the folder" in first.said(), "the first machine has saved something")
            first.stop()
            second = machine("second")
            app.wait(lambda: "is in the folder" in second.said(), "the second machine has gone on and saved")
            second.kill()
            third = machine("third")
            app.wait(lambda: steps_by("third"), "the third machine goes on")
            gate.let(second=22, third=33)
            first.resume()
            app.wait(lambda: "no longer wanted" in first.said(), "the first machine hears that it no longer counts")
            first.end()  # else the app might give it what a machine that is merely slow seems to have lost
            gate.let()
            version = app.wait(app.newest, "the app serves the new model")
            app.wait(lambda: "The app has taken the result" in third.said(), "the third hears that its model counts")
        finally:
            for one in machines.values():
                one.end()
        saved = min(steps_by("third")) - 1
        assert min(steps_by("second")) > 1
        assert saved >= min(steps_by("second"))
        assert saved % 5 == 0
        assert steps_by("third") == list(range(saved + 1, STEPS + 1))
        assert "The app has taken the result" not in first.said()
        (job,) = app.get("/api/ai/training/status")["allJobs"]
        assert (job["reason"], job["status"], job["modelVersion"]) == (
            "96 new samples and 3 uploaded models pending", "completed", version,
        )  # fmt: skip
        assert {one["status"] for one in app.get("/api/ai/uploads")["uploads"]} <= {"incorporated", "failed"}

        # A phone runs the file, and decides as the server's own base model does.
        (tmp_path / "phone").mkdir()
        (tmp_path / "phone.mlmodel").write_bytes(app.http.get(f"{app.url}/api/ai/models/{version}").content)
        interface = CoremlFormat().read(tmp_path / "phone.mlmodel", tmp_path / "phone")
        phone = Intent(IntentOptions()).adopt(tmp_path / "phone", interface)
        texts = [Phones(500).text(intent) for intent in INTENTS] + [phones.text(INTENTS[n % 5]) for n in range(40)]
        here = [said["intent"] for said in phone.predict([{"text": text} for text in texts])]
        there = [app.post("/api/intent/predict", {"text": text}).json()["output"]["intent"] for text in texts]
        (export,) = app.get("/api/ai/training/status")["modelInfo"]["exports"]
        assert export["agree"] == 1.0
        voted = app.get("/api/ai/stats")["incorporatedUserModels"]
        assert sum(a == b for a, b in zip(here, there, strict=True)) >= len(texts) - 2 * voted
