"""What every ledger promises of blocks of changes, leases, and several handles on the same data."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from evergreen.core.errors import AlreadyWaiting, NotFound, Stale
from evergreen.core.ports import Counts, CursorMove, Ledger, Tally
from evergreen.core.records import Event, Model, Reject, Run
from evergreen.testing.ledger.given import WHO, M, R, a_model, a_run, ids, some


class TogetherContract:
    """Blocks of changes, leases, what is remembered, and a second handle on the same data."""

    @pytest.fixture
    def ledger_factory(self) -> Callable[[], Ledger]:
        """Override to open another handle on the data of `ledger`."""
        pytest.skip("this ledger has one handle on its data")

    def test_all_or_nothing(self, ledger: Ledger) -> None:
        run = ledger.add(a_run("r"), **WHO)
        ledger.append("l", some(2, origin="a"))
        ledger.remember("a", "b", "c")
        revision = ledger.revision()

        def half() -> None:
            with ledger.together():
                ledger.move(run, R.QUEUED, **WHO, handle="h")
                ledger.add(a_model("m", 1), **WHO)
                ledger.append(
                    "l", some(5), traffic={"m": Tally(1)}, rejects=[Reject(origin="", where="", raw="", reason="")]
                )
                ledger.take_sides("l", holdout_after=0, upto=10**9)
                ledger.remember("a", "b", None)
                ledger.remember("a", "x", "y")
                assert ledger.get(Run, "r").state is R.QUEUED
                assert (ledger.counts("l").usable, len(list(ledger.samples("l", side="holdout")))) == (5, 5)
                assert (ledger.recall_all("a"), ledger.tally("m")) == ({"x": "y"}, Tally(1))
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            half()
        assert (ledger.get(Run, "r"), ledger.find(Model, "l"), len(ledger.find(Event, "l"))) == (run, [], 1)
        assert ([s.side for s in ledger.samples("l")], ledger.counts("l")) == (["", ""], Counts(usable=2))
        assert (ledger.recall_all("a"), ledger.tally("m"), list(ledger.rejects("l"))) == ({"b": "c"}, Tally(), [])
        assert ledger.revision() == revision
        assert list(ledger.append("l", some(3))) == [False, False, True]

    def test_a_block_in_a_block_is_part_of_it(self, ledger: Ledger) -> None:
        def half() -> None:
            with ledger.together():
                ledger.note("l", "inner", **WHO)
                raise ZeroDivisionError

        def whole() -> None:
            with ledger.together():
                with ledger.together():
                    ledger.note("l", "inner", **WHO)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            whole()
        with ledger.together():
            ledger.note("l", "outer", **WHO)
            with pytest.raises(ZeroDivisionError):
                half()
        assert [e.what for e in ledger.find(Event, "l")] == ["outer"]

    def test_an_error_that_was_caught_leaves_the_block_whole(self, ledger: Ledger) -> None:
        with ledger.together():
            ledger.add(a_run("1"), **WHO)
            with pytest.raises(AlreadyWaiting):
                ledger.add(a_run("2"), **WHO)
            with pytest.raises(Stale):
                ledger.append("l", some(1), cursor=CursorMove("csv", "7", "8"))
            with pytest.raises(NotFound):
                ledger.get(Run, "2")
            ledger.add(a_model("m", 1), **WHO)
        assert (ids(ledger.find(Run, "l")), ids(ledger.find(Model, "l")), ledger.counts("l")) == (
            ["1"],
            ["m"],
            Counts(),
        )

    def test_nobody_sees_it_half_done(self, ledger: Ledger) -> None:
        seen: set[tuple[int, int]] = set()
        stop = threading.Event()

        def watch() -> None:
            while not stop.is_set():
                with ledger.together():
                    seen.add((len(ledger.find(Model, "l", M.CHAMPION)), len(ledger.find(Model, "l")) % 2))

        watcher = threading.Thread(target=watch)
        champion = ledger.add(a_model("m0", 0, M.CHAMPION), **WHO)
        watcher.start()
        try:
            for n in range(2, 12, 2):
                with ledger.together():
                    ledger.move(champion, M.RETIRED, by="rollout", because="t")
                    ledger.add(a_model(f"m{n - 1}", n - 1), **WHO)
                    champion = ledger.add(a_model(f"m{n}", n, M.CHAMPION), **WHO)
        finally:
            stop.set()
            watcher.join()
        assert seen <= {(1, 1)}

    def test_what_is_remembered(self, ledger: Ledger) -> None:
        assert (ledger.recall("keys", "a"), dict(ledger.recall_all("keys"))) == (None, {})
        ledger.remember("keys", "b", "1")
        ledger.remember("keys", "a", "2")
        ledger.remember("keys", "a", "3")
        ledger.remember("other", "a", "")
        assert (ledger.recall("keys", "a"), ledger.recall("other", "a")) == ("3", "")
        assert dict(ledger.recall_all("keys")) == {"a": "3", "b": "1"}
        ledger.remember("keys", "a", None)
        ledger.remember("keys", "never", None)
        assert dict(ledger.recall_all("keys")) == {"b": "1"}

    def test_one_holds_a_lease(self, ledger: Ledger) -> None:
        assert ledger.lease("tick", "a:1:1", 600)
        assert ledger.lease("tick", "a:1:1", 600)
        assert not ledger.lease("tick", "b:1:1", 600)
        assert ledger.lease("other", "b:1:1", 600)
        ledger.release("tick", "b:1:1")
        assert not ledger.lease("tick", "b:1:1", 600)
        ledger.release("tick", "a:1:1")
        assert ledger.lease("tick", "b:1:1", 0)
        assert ledger.lease("tick", "a:1:1", 600)

    @pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc to see whether a process lives")
    def test_the_lease_of_a_process_that_ended_is_free(self, ledger: Ledger) -> None:
        host, ticks = socket.gethostname(), Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
        with subprocess.Popen([sys.executable, "-c", ""]) as ended:
            ended.wait()
        assert ledger.lease("tick", f"{host}:{ended.pid}:{ticks}", 600)
        assert ledger.lease("tick", f"{host}:{os.getpid()}:{int(ticks) + 1}", 600)  # the pid was given to another since
        assert ledger.lease("tick", f"{host}:{os.getpid()}:{ticks}", 600)
        assert not ledger.lease("tick", "another:1:1", 600)

    def test_a_second_handle_sees_the_same(self, ledger: Ledger, ledger_factory: Callable[[], Ledger]) -> None:
        second = ledger_factory()
        try:
            run, before = ledger.add(a_run("r"), **WHO), second.revision()
            second.append("l", some(2), cursor=CursorMove("csv", None, "1"))
            moved = second.move(run, R.QUEUED, **WHO)
            with pytest.raises(Stale):
                ledger.move(run, R.QUEUED, **WHO)
            with pytest.raises(AlreadyWaiting):
                second.add(a_run("2"), **WHO)
            assert (ledger.get(Run, "r"), ledger.counts("l"), ledger.recall("cursor", "l/csv")) == (
                moved,
                Counts(usable=2),
                "1",
            )
            assert ledger.revision() > before
            assert list(ledger.append("l", some(3))) == [False, False, True]
            assert ledger.lease("tick", "a:1:1", 600)
            assert not second.lease("tick", "b:1:1", 600)
        finally:
            second.close()

    def test_a_second_handle_sees_a_block_only_when_it_is_whole(
        self, ledger: Ledger, ledger_factory: Callable[[], Ledger]
    ) -> None:
        second = ledger_factory()
        try:
            with ledger.together():
                ledger.add(a_model("m", 1), **WHO)
                ledger.append("l", some(1))
                assert (second.find(Model, "l"), second.counts("l"), second.revision()) == ([], Counts(), 0)
            assert (ids(second.find(Model, "l")), second.counts("l").usable) == (["m"], 1)
        finally:
            second.close()

    def test_what_was_stored_outlives_the_handle(self, ledger: Ledger, ledger_factory: Callable[[], Ledger]) -> None:
        run = ledger.add(a_run("r"), **WHO)
        ledger.append("l", some(3))
        ledger.close()
        again = ledger_factory()
        try:
            assert (again.get(Run, "r"), ids(again.samples("l"))) == (run, ["s0", "s1", "s2"])
        finally:
            again.close()
