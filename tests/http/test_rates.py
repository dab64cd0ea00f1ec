"""How many calls one caller may make: the bucket as a machine, and the server that says 429 and when to come again."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest
from http_harness import MEMORY, PLAIN, App, wait
from hypothesis import given
from hypothesis import strategies as st
from test_auth import bearer, found

from evergreen.core.errors import TooMany, Unavailable
from evergreen.http import auth
from evergreen.http.rates import Rates

SLOW = MEMORY + '[http]\nanonymous = "app"\nrate = { key = 2, anonymous = 1, login = 3 }\n' + PLAIN


@given(st.integers(1, 50), st.lists(st.floats(0, 3), max_size=80))
def test_never_more_than_the_rate_and_a_burst(rate: int, pauses: list[float]) -> None:
    now = 0.0
    rates = Rates(rate, clock=lambda: now)
    through: list[float] = []
    for pause in pauses:
        now += pause
        with suppress(TooMany):
            rates.spend("x")
            through.append(now)
    for i, first in enumerate(through):
        for j, last in enumerate(through[i:], start=1):
            assert j <= 5 * rate + (last - first) * rate + 1e-6


@given(st.integers(1, 50))
def test_who_waits_as_long_as_was_said_is_let_through(rate: int) -> None:
    now = 0.0
    rates = Rates(rate, clock=lambda: now)
    for _ in range(5 * rate):
        rates.spend("x")
    for _ in range(3):
        with pytest.raises(TooMany) as e:
            rates.spend("x")
        now += e.value.after_s
        rates.check("x")
        rates.spend("x")


def test_no_rate_is_no_limit_and_callers_do_not_share() -> None:
    unlimited, one = Rates(0), Rates(1, burst_s=1, clock=lambda: 0.0)
    for i in range(1000):
        unlimited.spend("x")
        one.spend(str(i))
    with pytest.raises(TooMany):
        one.spend("7")


def test_many_callers_are_forgotten_before_memory_fills_and_the_worst_last() -> None:
    now = 0.0
    rates = Rates(1, clock=lambda: now)
    for _ in range(5):
        rates.spend("the worst")
    for i in range(100_000):
        rates.spend(str(i))
    assert len(rates._full) <= 20_000
    with pytest.raises(TooMany):
        rates.spend("the worst")


def test_who_calls_too_often_is_told_when_to_come_again(start: Callable[..., App]) -> None:
    app = start(SLOW)
    _, key = auth.create(app.project.ledger, "phone", "app")
    app.serving.keys.read()
    for headers, many in (({}, 5), (bearer(key), 10)):
        for path in ("/api/toy/models", "/api/toy/predict"):
            method = "GET" if path.endswith("models") else "POST"
            said = [app.http.request(method, path, headers=headers) for _ in range(many + 3)]
            refused = [one for one in said if one.status_code == 429]
            assert refused, (path, many)
            for one in refused:
                assert one.json()["error"]["code"] == "too_many"
                assert one.json()["error"]["hint"]
                assert 1 <= int(one.headers["retry-after"]) <= 5
    app.serving.audit.flush()


def test_guessing_keys_is_slow_and_does_not_hold_up_who_has_one(start: Callable[..., App]) -> None:
    app = start(MEMORY + "[http]\nrate = { anonymous = 1 }\n" + PLAIN)
    _, key = auth.create(app.project.ledger, "phone", "app")
    app.serving.keys.read()
    said = [app.http.get("/api/toy/models", headers=bearer(f"egk_{i}")).status_code for i in range(12)]
    assert said[:5] == [401] * 5
    assert said.count(429) >= 5
    assert app.http.get("/api/toy/models", headers=bearer(key)).status_code == 200


def test_attempts_to_sign_in_are_few(start: Callable[..., App]) -> None:
    app = start(MEMORY + "[http]\nrate = { login = 3 }\n" + PLAIN)
    _, key = auth.create(app.project.ledger, "ann", "admin")
    app.serving.keys.read()
    token = found(app.http.get("/login"))
    said = [app.http.post("/login", data={"key": f"egk_{i}", "csrf": token}) for i in range(5)]
    assert [one.status_code for one in said] == [401, 401, 401, 429, 429]
    assert 1 <= int(said[-1].headers["retry-after"]) <= 20
    assert 'role="alert"' in said[-1].text
    assert app.http.post("/login", data={"key": key, "csrf": token}).status_code == 429  # nobody learns which was right
    assert app.http.get("/api/toy/models", headers=bearer(key)).status_code == 200


def test_signing_in_rightly_costs_no_attempt(start: Callable[..., App]) -> None:
    app = start(MEMORY + "[http]\nrate = { login = 1 }\n" + PLAIN)
    _, key = auth.create(app.project.ledger, "ann", "admin")
    app.serving.keys.read()
    for _ in range(4):
        app.http.cookies.clear()
        token = found(app.http.get("/login"))
        assert app.http.post("/login", data={"key": key, "csrf": token}).status_code == 303


def test_who_may_do_everything_on_this_machine_is_not_counted(start: Callable[..., App]) -> None:
    app = start(MEMORY + "[http]\nrate = { anonymous = 1, key = 1 }\n" + PLAIN)
    assert {app.http.get("/api/toy/models").status_code for _ in range(30)} == {200}


def test_a_door_says_so_in_its_own_shape(start: Callable[..., App]) -> None:
    door = 'doors = [{ use = "small_recipes:Door" }]\n'
    app = start(door + MEMORY + '[http]\nanonymous = "app"\nrate = { anonymous = 1 }\n' + PLAIN)
    refused = wait(
        lambda: next((r for r in (app.http.post("/decide") for _ in range(9)) if r.status_code == 429), None)
    )
    assert refused.json()["door"] == "refused"
    assert int(refused.headers["retry-after"]) >= 1


def test_the_client_takes_it_for_later_and_every_other_error_for_what_it_was() -> None:
    from evergreen.client.client import _CLASSES, error_of

    for code, cls in _CLASSES.items():
        body = {"error": {"code": code, "message": "it is so", "field": "here", "hint": "do that"}}
        heard = error_of(cls.status, body)
        assert (str(heard), heard.hint) == ("it is so", "do that")
        assert isinstance(heard, Unavailable if cls is TooMany else cls)
