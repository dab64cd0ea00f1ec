"""Made-up users of a phone app: what they say, what was understood, and models that their phones trained."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

TEMPLATES = {
    "set_alarm": [
        "wake me at {time}", "set an alarm for {time}", "i need to get up at {time} {day}", "alarm {day} at {time} please",
    ],
    "play_music": [
        "play some {genre}", "put on {genre} music", "i want to hear {genre} {day}", "start the {genre} playlist",
    ],
    "weather": [
        "will it rain {day}", "what is the weather like {day}", "do i need an umbrella in {city}", "how cold is it in {city} {day}",
    ],
    "send_message": [
        "text {name} that i am late", "send {name} a message", "tell {name} i will call {day}", "write to {name} about {city}",
    ],
    "lights": [
        "turn off the lights in the {room}", "make the {room} brighter", "dim the {room} lamp", "switch the {room} light on",
    ],
}  # fmt: skip
WORDS = {
    "time": ["six", "seven thirty", "half past five", "noon", "quarter to nine", "eleven"],
    "day": ["today", "tomorrow", "on monday", "this weekend", "tonight", "on friday"],
    "genre": ["jazz", "rock", "classical", "techno", "folk", "blues"],
    "city": ["paris", "oslo", "rome", "lima", "cairo", "tokyo"],
    "name": ["anna", "tom", "my mother", "the boss", "luis", "mei"],
    "room": ["kitchen", "bedroom", "hall", "living room", "garage", "bathroom"],
}
INTENTS = sorted(TEMPLATES)


class Phones:
    """Users with their phones; the same seed says the same."""

    def __init__(self, seed: int = 1, devices: int = 4) -> None:
        self._chance = random.Random(seed)
        self._devices = [f"DEVICE-{seed}-{i:04d}" for i in range(devices)]
        self._seed, self._count = seed, 0

    def text(self, intent: str) -> str:
        """Say something."""
        template = self._chance.choice(TEMPLATES[intent])
        polite = self._chance.choice(["", "", "please ", "hey ", "could you "])
        return polite + template.format(**{slot: self._chance.choice(words) for slot, words in WORDS.items()})

    def interaction(self, **about: Any) -> dict[str, Any]:
        """Make one exchange."""
        self._count += 1
        intent = self._chance.choice(INTENTS)
        return {
            "id": f"interaction-{self._seed}-{self._count}",
            "timestamp": "2026-01-01T12:00:00Z",
            "userMessage": self.text(intent),
            "aiResponse": "SECRET-ANSWER all right",
            "detectedIntent": intent,
            "confidenceScore": 0.9,
            **about,
        }

    def batch(self, n: int, *, device: int | None = None, feedback: Any = None) -> dict[str, Any]:
        """Make one request of one phone."""
        about = {} if feedback is None else {"feedback": feedback}
        name = self._devices[device] if device is not None else self._chance.choice(self._devices)
        return {
            "deviceId": name,
            "appVersion": "1.4",
            "modelVersion": "1.0.0",
            "osVersion": "18.1",
            "interactions": [self.interaction(**about) for _ in range(n)],
        }


def onnx_model(path: Path, *, seed: int = 0, labels: Sequence[str] = INTENTS) -> Path:
    """Train a small model as a phone would and save it: a text in, probabilities out."""
    import numpy as np
    from onnx import TensorProto, helper, save
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression

    phones = Phones(1000 + seed)
    said = [(phones.text(label), label) for label in labels for _ in range(40)]
    counts = CountVectorizer(lowercase=True)
    table = counts.fit_transform([text for text, _ in said])
    model = LogisticRegression(max_iter=300).fit(table, [label for _, label in said])
    names = [str(word) for word in counts.get_feature_names_out()]
    nodes = [
        helper.make_node("MatMul", ["counts", "weights"], ["weighed"]),
        helper.make_node("Add", ["weighed", "intercepts"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
    ]
    constants = {"weights": model.coef_.T.astype(np.float32), "intercepts": model.intercept_.astype(np.float32)}
    graph = helper.make_graph(
        nodes,
        "phone",
        [helper.make_tensor_value_info("counts", TensorProto.FLOAT, [None, len(names)])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, len(labels)])],
        [
            helper.make_tensor(name, TensorProto.FLOAT, value.shape, value.ravel().tolist())
            for name, value in constants.items()
        ],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    helper.set_model_props(made, {"evergreen.labels": _listed(model.classes_), "evergreen.names": _listed(names)})
    save(made, str(path))
    return path


def _listed(words: Sequence[str]) -> str:
    return json.dumps([str(word) for word in words])
