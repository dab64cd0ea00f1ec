"""`evergreen worker`: lend this machine to an application with which it shares nothing but a folder."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evergreen.cli import terminal
from evergreen.core.errors import JobFailed

if TYPE_CHECKING:
    from evergreen.job.far.news import News, Tell, Training


def worker(
    store_url: Annotated[
        str,
        typer.Argument(
            metavar="STORE_URL",
            envvar="EVERGREEN_STORE",
            help="The shared folder: a path, s3://bucket/prefix, dropbox:///folder or gdrive:///folder.",
        ),
    ],
    once: Annotated[bool, typer.Option("--once", help="End after one training.")] = False,
    hours: Annotated[
        float | None,
        typer.Option(min=0.001, help="How long this machine will be there; before that the training is handed over."),
    ] = None,
    wait: Annotated[
        float | None, typer.Option(min=0, help="End when no training has come for so many minutes.")
    ] = None,
    loop: Annotated[list[str] | None, typer.Option(help="Train only this loop; may be given again.")] = None,
    poll: Annotated[float, typer.Option(min=0.05, help="Seconds between two looks into the folder.")] = 5.0,
    name: Annotated[str | None, typer.Option(help="What the app calls this machine; its host name if not set.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one line of JSON for everything that happens.")
    ] = False,
) -> None:
    """Train for an app, through a shared folder and nothing else.

    Ctrl-C (or SIGTERM) saves what was learnt and hands over; a second one ends at once. The exit code is 1 if the last
    training failed, 0 else.
    """
    from evergreen.job.far import attend
    from evergreen.job.far.attendance import Sentences

    def train(tell: Tell) -> list[Training]:
        return attend(
            store_url, once=once, hours=hours, wait_minutes=wait, loops=loop or (), poll_s=poll, name=name, tell=tell
        )

    if as_json:
        done = train(_line)
        for training in done:
            _put({"kind": "done", **asdict(training)})
    elif sys.stderr.isatty():
        with terminal.progress() as show:
            done = train(_Screen(show))
    else:
        done = train(Sentences(terminal.say))
    _report(done, as_json)


def _report(done: list[Training], as_json: bool) -> None:
    if not as_json:
        terminal.say(f"{len(done)} training{'' if len(done) == 1 else 's'} here." if done else "No training came.")
    if done and done[-1].state in ("failed", "lost") and done[-1].failure != "preempted":
        raise JobFailed(f"the last training failed: {done[-1].error}")


def _line(news: News) -> None:
    _put(asdict(news))


def _put(said: dict[str, Any]) -> None:
    print(json.dumps(said), flush=True)


class _Screen:
    """A bar for what goes on, and a line for what has happened."""

    def __init__(self, show: terminal.Show) -> None:
        self._show, self._last = show, ""

    def __call__(self, news: News) -> None:
        """Show it."""
        if news.kind == "running":
            self._show(news.phase or "training", news.step, news.total)
            return
        if news.kind == "waiting":
            self._show(news.text, 0, 0)
            return
        if news.text != self._last:
            self._last = news.text
            terminal.console(err=True).print(news.text)
