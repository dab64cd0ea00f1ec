"""Commands about a loop: where it stands, train it, stop it, what happened."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evergreen.cli import following, terminal
from evergreen.cli.opening import (
    ConfigOption,
    JsonOption,
    LoopArgument,
    Misuse,
    ReasonOption,
    opened,
    pick,
    server,
    who,
)
from evergreen.core.errors import AlreadyWaiting

if TYPE_CHECKING:
    from evergreen.core.loop import Loop
    from evergreen.project import Project

ForceOption = Annotated[bool, typer.Option("--force", help="Even with fewer samples than `trigger.min_size`.")]
FileOption = Annotated[
    Path | None, typer.Option("--file", help="Collect this file and train on it alone; it lies in `collect.folders`.")
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A recipe option, for this training only.")
]


def status(
    loop: LoopArgument = None, config: ConfigOption = Path("evergreen.toml"), as_json: JsonOption = False
) -> None:
    """Show where the loops stand: champion, samples, training, rollout."""
    from evergreen import outbox
    from evergreen.stages import observe

    with opened(config) as project:
        names = [project.loop(loop)] if loop else list(project.loops.values())
        said = {one.name: observe.status(one) for one in names}
        told = [standing.plain() for standing in outbox.standing(project)]
        running = server(project)
    if as_json:
        terminal.put_json(said[loop] if loop else {"loops": said, "subscribers": told})
        return
    if not said:
        print("This project has no loop yet: add a [loops.NAME] table to evergreen.toml.")
    else:
        columns = ["loop", "champion", "scores", ">samples", ">new", ">quarantined", "training", "rollout"]
        terminal.table(columns, [_line(s) for s in said.values()])
        for s in said.values():
            if last := s.get("last_event"):
                print(f"{s['loop']}: {_what(last)}, {terminal.ago(last['at'])}: {last['because']}")
            for alarm in s["alarms"]:
                print(f"{s['loop']}: ALARM ({alarm['kind']}), begun {terminal.ago(alarm['since'])}: {alarm['because']}")
    for one in told:
        if one["error"]:
            since = terminal.ago(one["failing_since"])
            print(f"{one['name']} cannot be told since {since}: {one['error']} ({one['waiting']} wait)")
    print(f"server: {running.get('url', 'running')} (pid {running['pid']})" if running else "server: not running")


def _far(run: dict[str, Any]) -> str:
    """Say where a training runs, how long it still takes and when it was last heard of."""
    from evergreen.job.far.news import span

    where = f" on {run['where']}" if run["where"] else ""
    left = f", about {span(run['left_s'])} left" if run["left_s"] else ""
    return where + left + (f", heard {terminal.ago(run['heard'])}" if run["heard"] else "")


def _line(s: dict[str, Any]) -> list[Any]:
    champion, run, rollout, samples = s["champion"], s["run"], s["rollout"], s["samples"]
    scores = ", ".join(f"{k} {terminal.figure(v)}" for k, v in list(champion["scores"].items())[:2]) if champion else ""
    waiting = "".join(f", v{version} waits" for version in s["waiting"])
    training = "–"
    if run:
        counted = f" {run['step']}/{run['total']}" if run["total"] else ""
        training = f"{run['state']} {run['phase']}{counted}{_far(run)}".replace("  ", " ")
    return [
        s["loop"],
        f"v{champion['version']}, since {terminal.ago(champion['since'])}" if champion else "none yet",
        scores,
        samples["collected"],
        samples["new"],
        samples["quarantined"],
        training,
        f"v{rollout['version']} {rollout['state']} {rollout['share']:.0%}{waiting}" if rollout else "–",
    ]


def trigger(
    loop: LoopArgument = None,
    reason: ReasonOption = "asked for",
    force: ForceOption = False,
    wait: Annotated[bool, typer.Option("--wait", help="Stay until the model is judged.")] = False,
    file: FileOption = None,
    options: SetOption = None,
    config: ConfigOption = Path("evergreen.toml"),
    as_json: JsonOption = False,
) -> None:
    """Ask for a training; the running server does it."""
    with opened(config) as project:
        one = pick(project, loop)
        if wait:
            _train(project, one, reason, force, file, options, as_json)
            return
        run = _ask(one, reason, force, file, options)
        running = server(project) is not None
    if as_json:
        terminal.put_json({"run": {"id": run.id, "state": run.state}, "server": running})
    else:
        print(f"A training of {one.name} was asked for: {run.id}")
    if not running:
        terminal.say(
            "No server runs, so it waits. Begin with `evergreen up`, or train here: `evergreen trigger --wait`."
        )


def train(
    loop: LoopArgument = None,
    reason: ReasonOption = "asked for",
    force: ForceOption = False,
    file: FileOption = None,
    options: SetOption = None,
    config: ConfigOption = Path("evergreen.toml"),
    as_json: JsonOption = False,
) -> None:
    """Train here and now, and print the verdict."""
    with opened(config) as project:
        _train(project, pick(project, loop), reason, force, file, options, as_json)


def _train(
    project: Project, loop: Loop, why: str, force: bool, file: Path | None, options: list[str] | None, as_json: bool
) -> None:
    from evergreen import engine
    from evergreen.core.records import Run
    from evergreen.core.states import OPEN_RUNS

    try:
        run = _ask(loop, why, force, file, options)
    except AlreadyWaiting:
        run = loop.ledger.last(Run, loop.name, *OPEN_RUNS)
        if run is None or file is not None or options:
            raise
        terminal.say("A training waits or runs already; this is it.")
    try:
        model = following.follow(project, loop, run)
    except KeyboardInterrupt:
        if server(project) is None:
            engine.cancel(loop, by=who(), why="Ctrl-C")
            following.follow(project, loop, run)
            terminal.say("The training was cancelled.")
        raise
    if as_json:
        terminal.put_json(following.outcome(loop, run, model))
        if model is None:
            raise typer.Exit(1)
    else:
        following.tell(loop, run, model)


def _ask(loop: Loop, why: str, force: bool, file: Path | None, options: list[str] | None) -> Any:
    from evergreen import engine

    if file is not None:
        file = file.resolve()
    return engine.ask(loop, by=who(), why=why, force=force, overrides=_overrides(options or []), file=file)


def _overrides(words: list[str]) -> dict[str, Any]:
    """Read KEY=VALUE; a value is JSON where it can be, else text."""
    read: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise Misuse(f"{word!r} is not KEY=VALUE", field="--set", hint="--set model=logistic")
        try:
            read[key] = json.loads(value)
        except ValueError:
            read[key] = value
    return read


def cancel(
    loop: LoopArgument = None, reason: ReasonOption = "asked for", config: ConfigOption = Path("evergreen.toml")
) -> None:
    """Stop the training that waits or runs."""
    from evergreen import engine
    from evergreen.core.records import Run
    from evergreen.core.states import OPEN_RUNS

    with opened(config) as project:
        one = pick(project, loop)
        run = engine.cancel(one, by=who(), why=reason)
        state = one.ledger.get(Run, run.id).state
    print(f"Training {run.id} is {'to stop' if state in OPEN_RUNS else state}.")


def history(
    loop: LoopArgument = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many events.")] = 30,
    config: ConfigOption = Path("evergreen.toml"),
    as_json: JsonOption = False,
) -> None:
    """List what happened and why, newest first."""
    from evergreen.stages import observe

    with opened(config) as project:
        events = observe.history(pick(project, loop), limit=limit)
    if as_json:
        terminal.put_json(events)
        return
    if not events:
        print("Nothing has happened yet.")
        return
    rows = []
    for e in events:
        move = f"{e['frm']} → {e['to']}" if e["frm"] and e["to"] else e["to"] or e["what"]
        rows.append([(e["at"] or "")[:19].replace("T", " "), _subject(e), move, e["by"], e["because"]])
    terminal.table(["when (UTC)", "what", "change", "by", "because"], rows)


def _subject(event: dict[str, Any]) -> str:
    """Name what an event is about: by its version, or else by the end of its id; ids made together begin alike."""
    kind, _, id = event["subject"].partition(" ")
    return f"{kind} v{event['version']}" if event["version"] else f"{kind} {id[-8:]}".strip()


def _what(event: dict[str, Any]) -> str:
    """Say what happened in plain words."""
    return f"{event['kind']} v{event['version']}" if event["version"] else str(event["kind"])
