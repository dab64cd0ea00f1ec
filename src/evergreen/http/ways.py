"""Ways in: every path says who may take it, what it takes and gives. Routes, documents and the table of roles come of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from evergreen.core.errors import ConfigError
from evergreen.http import shapes
from evergreen.http.auth import Role

READS = ("GET", "HEAD", "OPTIONS")


@dataclass(frozen=True)
class Endpoint:
    """One line of the table."""

    method: str
    path: str
    handler: Callable[..., Awaitable[Any]]
    role: Role
    summary: str
    takes: tuple[Any, ...] = ()  #: shapes of the body, any of them
    gives: tuple[Any, ...] = ()  #: shapes of a good answer, any of them
    status: int = 200
    errors: tuple[int, ...] = ()  #: beside 400, 401, 403, 404, 413 and 429, which are declared where they can be
    query: Mapping[str, str] = field(default_factory=dict)
    example: Any = None
    media: str = "application/json"  #: of the answer
    body: str = "application/json"  #: kind of the body
    refuses: Any = shapes.Error  #: shape of errors
    loop: str = ""  #: that it belongs to, where the path does not say so
    changes: bool = True  #: a POST that changes something; the audit log tells of it
    page: bool = False  #: for people: asks by itself who they are, and is not part of the API
    link: str = ""  #: what the overview calls it, where it leads there

    @property
    def of_loop(self) -> bool:
        """Whether it is there once for every loop."""
        return "{loop}" in self.path

    @property
    def name(self) -> str:
        """What it is called in tables and logs."""
        return f"{self.method} {self.path}"


class Way(Route):
    """A route made of a line of the table: who may not take it does not get in."""

    def __init__(self, said: Endpoint, handler: Callable[[Request], Awaitable[Response]] | None = None) -> None:
        path = said.path.replace("{v}", "{v:int}")
        super().__init__(path, handler or said.handler, methods=[said.method], name=said.name)
        self.said = said

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Ask for the role, then answer; the edge is told which line of the table it was."""
        said = self.said
        if scope["method"] == said.method or (scope["method"] == "HEAD" and said.method == "GET"):
            scope["evergreen.way"] = said
            if not said.page:
                scope["app"].state.serving.require(Request(scope), said.role)
        await super().handle(scope, receive, send)


def declared(routes: Iterable[BaseRoute]) -> list[Endpoint]:
    """Return the lines of a door's routes. Raises `ConfigError` for a route that does not say who may take it."""
    table = []
    for route in routes:
        if not isinstance(route, Way):
            raise ConfigError(
                f"the route {getattr(route, 'path', route)} does not say who may take it",
                field="doors",
                hint="Return evergreen.http.ways.Way(Endpoint(…)) from `routes`.",
            )
        table.append(route.said)
    return table
