"""Drive's language for searching (`'id' in parents and name = 'x'`), as far as a store asks; the rest is refused."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

Test = Callable[[Mapping[str, Any]], bool]

_TOKEN = re.compile(r"\s*(?:(?P<text>'(?:[^'\\]|\\.)*')|(?P<op>!=|=|\(|\))|(?P<word>[A-Za-z]+))")


class NotAQuery(ValueError):
    """Drive would answer 400 to this."""


def parse(query: str) -> Test:
    """Return what says of a file whether it is looked for."""
    tokens, at = [], 0
    while query[at:].strip():
        match = _TOKEN.match(query, at)
        if match is None:
            raise NotAQuery(query[at:])
        kind = str(match.lastgroup)
        text = match[kind]
        tokens.append((kind, re.sub(r"\\(.)", r"\1", text[1:-1]) if kind == "text" else text))
        at = match.end()
    test, rest = _any(tokens)
    if rest:
        raise NotAQuery(str(rest))
    return test


Tokens = list[tuple[str, str]]


def _any(tokens: Tokens) -> tuple[Test, Tokens]:
    test, tokens = _all(tokens)
    tests = [test]
    while tokens[:1] == [("word", "or")]:
        test, tokens = _all(tokens[1:])
        tests.append(test)
    return (lambda file: any(test(file) for test in tests)), tokens


def _all(tokens: Tokens) -> tuple[Test, Tokens]:
    test, tokens = _one(tokens)
    tests = [test]
    while tokens[:1] == [("word", "and")]:
        test, tokens = _one(tokens[1:])
        tests.append(test)
    return (lambda file: all(test(file) for test in tests)), tokens


def _one(tokens: Tokens) -> tuple[Test, Tokens]:
    if tokens[:1] == [("op", "(")]:
        test, tokens = _any(tokens[1:])
        if tokens[:1] != [("op", ")")]:
            raise NotAQuery("a parenthesis is open")
        return test, tokens[1:]
    match tokens[:3]:
        case [("text", id), ("word", "in"), ("word", "parents")]:
            return (lambda file: id in file["parents"]), tokens[3:]
        case [("word", "trashed"), ("op", "="), ("word", "true" | "false" as said)]:
            return (lambda file: file["trashed"] == (said == "true")), tokens[3:]
        case [("word", "name"), ("op", "="), ("text", name)]:
            # Not exact: Drive finds "A.txt" too when it is asked for "a.txt".
            return (lambda file: file["name"].casefold() == name.casefold()), tokens[3:]
        case [("word", "mimeType"), ("op", "=" | "!=" as op), ("text", kind)]:
            return (lambda file: (file["mimeType"] == kind) == (op == "=")), tokens[3:]
    raise NotAQuery(str(tokens[:3]))
