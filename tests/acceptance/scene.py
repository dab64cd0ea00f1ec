"""A project in which everything that a page can show has happened: what people look at, laid out for looking at it.

`python tests/acceptance/scene.py FOLDER` lays it down and serves it.
"""

from __future__ import annotations

import io
import json
import random
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from acceptance_kit import Server, serving, wait
from live_recipes import truth

HERE = Path(__file__).parent
LONG = "a-rather-long-name-of-a-loop-that-nobody-has-fed-yet"
TOML = f"""
tick = "200ms"

[loops.loans]                       # a champion, one turned away, a canary on evidence; live traffic has drifted
recipe = {{ use = "tabular", target = "repaid", model = "logistic" }}
runner = {{ use = "inline" }}
collect.consent = false
trigger.auto = false
gate = {{ slices = ["region", "employment"], golden = "golden.jsonl", margin = 0.05, looks = 1 }}
drift = {{ window = 250, min_rows = 100 }}
[loops.loans.rollout]
steps = [0.0, 0.25, 0.5, 1.0]
hold = "1s"
min_answers = 30
rule = "evidence"
evidence = {{ alpha = 0.0001, harm = 0.4, harm_alpha = 0.0001 }}  # so that it stays a canary

[loops.answers]                     # an experiment that is under way
recipe = {{ use = "live_recipes:Guesses" }}
runner = {{ use = "inline" }}
collect.consent = false
trigger.auto = false
gate = {{ min_rows = 1, margin = 1.0 }}
rollout = {{ steps = [1.0], hold = "0s" }}

[loops.commands]                    # uploads, and rows that were refused
recipe = {{ use = "intent" }}
runner = {{ use = "inline" }}
trigger.auto = false
gate.metric = "accuracy"

[loops.forecasts]                   # a training is running
recipe = {{ use = "scene_recipes:Endless" }}
collect.consent = false
trigger.auto = false

[loops.notes]                       # two versions, to be played with
recipe = {{ use = "live_recipes:Guesses" }}
runner = {{ use = "inline" }}
collect.consent = false
trigger.auto = false
gate = {{ min_rows = 1, margin = 1.0 }}
rollout = {{ steps = [1.0], hold = "0s" }}

[loops.deliveries]                  # in trouble
recipe = {{ use = "scene_recipes:Hopeless" }}
runner = {{ use = "inline" }}
collect.consent = false
trigger.auto = false

[loops.{LONG}]
recipe = {{ use = "tabular", target = "label" }}
"""
REGIONS = ("north", "east", "south", "west")
WORK = ("employed", "self-employed", "retired", "none")


def loan(dice: random.Random, *, drifted: bool = False) -> dict[str, Any]:
    """Make one applicant up, and whether the loan was repaid."""
    income = dice.lognormvariate(3.5 + (0.7 if drifted else 0), 0.4)
    work = dice.choices(WORK, (2, 5, 1, 2) if drifted else (6, 2, 2, 1))[0]
    amount = dice.uniform(1, 60)
    likely = income * 0.9 + (12 if work == "employed" else 0) - amount + dice.gauss(0, 8)
    return {
        "income": round(income, 1),
        "amount": round(amount, 1),
        "age": dice.randint(18, 80),
        "region": dice.choice(REGIONS),
        "employment": work,
        "repaid": "yes" if likely > 0 else "no",
    }


def lay_down(home: Path) -> None:
    """Write the project's files, with a few keys."""
    home.mkdir(parents=True)
    (home / "evergreen.toml").write_text(TOML)
    cases = [
        {
            "input": {"income": 90, "amount": 2, "age": 40, "region": "north", "employment": "employed"},
            "expected": "yes",
        },
        {"input": {"income": 3, "amount": 59, "age": 40, "region": "south", "employment": "none"}, "expected": "no"},
        {
            "input": {"income": 30, "amount": 33, "age": 19, "region": "west", "employment": "retired"},
            "expected": "yes",
            "name": "a pensioner in the west who asks for a little more than is earned",
        },
    ]
    (home / "golden.jsonl").write_text("".join(json.dumps(c) + "\n" for c in cases))


@contextmanager
def played(home: Path) -> Iterator[Server]:
    """Lay the project down, serve it, and let everything happen; at the end no training is left behind."""
    lay_down(home)
    with serving(home, PYTHONPATH=str(HERE)) as server:
        try:
            _perform(server)
            yield server
        finally:
            server.http.post("/api/forecasts/cancel", json={"why": "the end"})
            wait(lambda: server.get("/api/forecasts/status")["run"] is None, "the training has ended")


def _perform(server: Server) -> None:
    dice = random.Random(5)
    _running_and_failed(server)
    _guesses(server)
    _experiment(server, dice)
    _commands(server, dice)
    _loans(server, dice)


def _running_and_failed(server: Server) -> None:
    for loop in ("forecasts", "deliveries"):
        server.post(f"/api/{loop}/samples", [{"id": f"r{i}", "input": {"n": i}, "label": i % 2} for i in range(60)])
        server.post(f"/api/{loop}/train", {"force": True, "why": "the monthly figures came in"})


def _guesses(server: Server) -> None:
    rows = [{"id": f"r{i}", "input": {"n": i}, "label": truth(i)} for i in range(40)]
    for loop, skills in {"answers": (0.8, 0.82, 0.7), "notes": (0.8, 0.82)}.items():
        server.post(f"/api/{loop}/samples", rows)
        for version, skill in enumerate(skills, start=1):
            about = {"force": True, "why": "another way to ask", "overrides": {"skill": skill}}
            server.post(f"/api/{loop}/train", about)
            wait(lambda name=loop, v=version: champion(server, name) == v, f"v{version} of {loop} answers")


def champion(server: Server, loop: str) -> int:
    """Return the version that answers; 0 if there is none."""
    found = server.get(f"/api/{loop}/status")["champion"]
    return int(found["version"]) if found else 0


def _experiment(server: Server, dice: random.Random) -> None:
    server.post("/api/answers/rollback", {"why": "v3 is for an experiment"})
    about = {"versions": [1, 3], "shares": [0.3, 0.3], "deadline": "7d"}
    server.post("/api/answers/experiment", about | {"why": "Is the shorter way to ask as good?"})
    _ask(server, "answers", [({"n": n}, truth(n)) for n in (dice.randrange(10**6) for _ in range(100))])


def _ask(server: Server, loop: str, rows: list[tuple[Any, Any]]) -> None:
    """Ask, each row as another unit, and say what was right."""
    for i, (value, label) in enumerate(rows):
        answer = server.post(f"/api/{loop}/predict", {"input": value, "unit": f"user-{i}"})
        if label is not None:
            server.post(f"/api/{loop}/feedback", {"id": answer["id"], "label": label})


def _commands(server: Server, dice: random.Random) -> None:
    verbs = {
        "lights on": ("turn on", "switch on"),
        "lights off": ("turn off", "switch off"),
        "weather": ("how is", "what is"),
    }
    said = [
        (f"{dice.choice(ways)} the {dice.choice(('lamp', 'light', 'sky'))} {i}", label)
        for i in range(60)
        for label, ways in verbs.items()
    ]
    rows = [
        {"id": f"c{i}", "input": {"text": text}, "label": label, "consent": True}
        for i, (text, label) in enumerate(said)
    ]
    server.post("/api/commands/samples", rows)
    server.train("commands", "a first model")
    broken = {"model": ("kitchen tablet, 14 May.mlmodel", b"not a model at all", "application/octet-stream")}
    server.http.post("/api/commands/uploads", files=broken)
    zipped = zipfile.ZipFile(io.BytesIO(server.http.get("/api/commands/models/1/download").content))
    inside = next(name for name in zipped.namelist() if name.endswith(".mlmodel"))
    good = {"model": ("living room.mlmodel", zipped.read(inside), "application/octet-stream")}
    assert server.http.post("/api/commands/uploads", files=good).is_success
    server.http.post("/api/commands/samples", json={"input": {"text": "lights"}, "label": "lights on"})  # nobody agreed


def _loans(server: Server, dice: random.Random) -> None:
    def collect(n: int, wrong: float = 0.0) -> None:
        rows = [loan(dice) for _ in range(n)]
        for row in rows:
            if dice.random() < wrong:
                row["repaid"] = "no" if row["repaid"] == "yes" else "yes"
        server.post("/api/loans/samples", rows)

    collect(700)
    server.train("loans", "a first model")
    server.post(
        "/api/loans/train",
        {"force": True, "why": "does it need the income?", "overrides": {"features": ["age", "amount"]}},
    )
    wait(lambda: len(server.get("/api/loans/models")["models"]) == 2, "a second model")
    wait(
        lambda: server.get("/api/loans/models")["models"][0]["state"] in ("rejected", "undecided"), "it is turned away"
    )
    collect(700)
    server.post("/api/loans/train", {"force": True, "why": "seven hundred new loans"})
    wait(lambda: len(server.get("/api/loans/models")["models"]) == 3, "a third model")
    _ask(server, "loans", [_asked(loan(dice, drifted=True)) for _ in range(160)])
    wait(lambda: server.get("/api/loans/models")["models"][0]["state"] == "canary", "the third model is a canary")
    _ask(server, "loans", [_asked(loan(dice, drifted=True)) for _ in range(100)])
    wait(lambda: server.get("/api/loans/drift")["alarm"], "the drift is noticed")


def _asked(row: dict[str, Any]) -> tuple[dict[str, Any], str]:
    return {k: v for k, v in row.items() if k != "repaid"}, row["repaid"]


if __name__ == "__main__":
    with played(Path(sys.argv[1])) as server:
        print(server.url, flush=True)
        input()
