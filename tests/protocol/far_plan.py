"""What happens in one simulated world: the weather, who takes part, and what goes wrong when. Small, printable, repeatable."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Literal

from far_folder import API, MOUNTED, STRONG, SYNCED, Weather

Kind = Literal[
    "app crash",  # the process dies between two operations and begins again later; its ledger survives
    "app pause",  # it stands still
    "app cut off",  # what it writes does not leave the machine, what others write does not come
    "worker crash",  # the process dies, its training may go on for a while; a new process begins later
    "worker loss",  # machine, disk and what had not left it are gone; another machine comes later
    "worker pause",  # worker and training stand still: a closed lid
    "worker cut off",
    "drain",  # the session of a worker ends in good order; another begins later
    "cancel",  # a person stops the run
]
KINDS: tuple[Kind, ...] = Kind.__args__  # type: ignore[attr-defined]
#: How often each goes wrong, in the order of `KINDS`.
_ODDS = (3, 2, 1, 3, 3, 3, 2, 2, 1)
WEATHERS: dict[str, Weather] = {weather.name: weather for weather in (STRONG, API, SYNCED, MOUNTED)}
#: Nothing goes wrong after so many seconds, but what lasts; then everything must come to an end.
HORIZON_S = 600.0


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong."""

    at: float  #: seconds after the beginning
    kind: Kind
    whom: int = 0  #: which app or worker
    lasts: float = 60.0  #: seconds


@dataclass(frozen=True)
class Plan:
    """One world; the same plan plays out the same way."""

    seed: int
    weather: str = "strong"
    mode: Literal["grant", "direct"] = "grant"
    ledger: Literal["memory", "sql"] = "memory"
    workers: int = 1
    #: A second app: none, one that shares the ledger (a zombie's successor), one with a copy of it (a mistake).
    second_app: Literal["", "same ledger", "copied ledger"] = ""
    loops: int = 1
    steps: int = 6
    step_s: float = 5.0
    every: int = 2
    session_s: float | None = None  #: machines are lent for so long, then for so long again
    fails: bool = False  #: the recipe raises half-way
    brisk: bool = False  #: every operation is quick from the start
    app_s: float = 0.0  #: an app's machine is overloaded, for ever: each of its operations takes so long
    faults: tuple[Fault, ...] = ()

    @property
    def lent_s(self) -> float | None:
        """How long a machine is lent; a session in which no checkpoint can be reached would bring nobody on."""
        return self.session_s if self.session_s and self.session_s > 60 + 2 * self.every * self.step_s else None


def draw(seed: int, mode: Literal["grant", "direct"] | None = None, weather: str | None = None) -> Plan:
    """Draw a plan by chance; `mode` and `weather` if they are given."""
    chance = Random(seed)
    mode = mode or ("direct" if chance.random() < 0.3 else "grant")
    fitting = [name for name, w in WEATHERS.items() if mode == "grant" or w.exclusive]
    name = weather or chance.choice(fitting)
    workers = chance.choice((1, 2, 2, 3, 4))
    second = chance.choice(("", "", "", "", "", "same ledger", "copied ledger"))
    if mode == "direct" and second == "copied ledger":
        second = ""  # both would take the same claim for theirs: only granted marks are told apart by who granted them
    return Plan(
        seed=seed,
        weather=name,
        mode=mode,
        workers=workers,
        second_app=second,  # type: ignore[arg-type]
        loops=chance.choice((1, 1, 2)),
        steps=chance.choice((2, 6, 12)),
        step_s=chance.choice((1.0, 5.0, 20.0)),
        every=chance.choice((1, 2, 5)),
        session_s=chance.choice((None, None, None, None, 90.0, 300.0)),
        fails=chance.random() < 0.05,
        brisk=chance.random() < 0.3,
        faults=tuple(sorted((_fault(chance) for _ in range(chance.choice((0, 1, 2, 4, 8, 12)))), key=lambda f: f.at)),
    )


def _fault(chance: Random) -> Fault:
    kind = chance.choices(KINDS, _ODDS)[0]
    lasts = chance.choice((5.0, 40.0, 100.0, 300.0))
    # Most things happen early: that is when there is most to be hurt.
    return Fault(round(chance.random() ** 2 * HORIZON_S, 1), kind, chance.randrange(4), lasts)
