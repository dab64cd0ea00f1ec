"""What every source must do. Subclass `SourceContract`, give it two fixtures, and pytest does the rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from evergreen.core.ports import Incoming, Source

#: Makes another instance of the same source, as a restarted process would.
MakeSource = Callable[[], Source]
#: Adds rows to what the source reads: each has the keys `a` and `b`, whose values are text.
Write = Callable[[Sequence[dict[str, str]]], None]


def rows(start: int, stop: int) -> list[dict[str, str]]:
    """Return rows that can be told apart."""
    return [{"a": str(i), "b": f"text {i}"} for i in range(start, stop)]


def drain(source: Source, cursor: str | None, limit: int = 100) -> tuple[list[Incoming], str | None]:
    """Pull until the source says that there is no more."""
    got: list[Incoming] = []
    more = True
    while more:
        pulled = source.pull(cursor, limit)
        got += pulled.rows
        cursor, more = pulled.cursor, pulled.more
    return got, cursor


class SourceContract:
    """The promises of `Source`. Fixtures to give: `make_source` (a `MakeSource`) and `write` (a `Write`)."""

    def test_nothing_there_yet_is_no_error(self, make_source: MakeSource) -> None:
        """A source may be configured before its first row exists."""
        pulled = make_source().pull(None, 10)
        assert (list(pulled.rows), list(pulled.rejects), pulled.more) == ([], [], False)

    def test_new_rows_come_once_in_order(self, make_source: MakeSource, write: Write) -> None:
        """What was returned is not returned again."""
        source = make_source()
        write(rows(0, 5))
        first, cursor = drain(source, None)
        write(rows(5, 8))
        second, _ = drain(source, cursor)
        assert [dict(row.row) for row in first] == rows(0, 5)
        assert [dict(row.row) for row in second] == rows(5, 8)

    def test_nothing_new_is_no_rows_and_the_same_cursor(self, make_source: MakeSource, write: Write) -> None:
        """An idle tick changes nothing."""
        source = make_source()
        write(rows(0, 5))
        _, cursor = drain(source, None)
        pulled = source.pull(cursor, 10)
        assert (list(pulled.rows), pulled.cursor, pulled.more) == ([], cursor, False)

    def test_another_instance_goes_on_at_the_cursor(self, make_source: MakeSource, write: Write) -> None:
        """All that a restart needs is the cursor."""
        write(rows(0, 5))
        pulled = make_source().pull(None, 3)
        rest, _ = drain(make_source(), pulled.cursor)
        assert [dict(row.row) for row in [*pulled.rows, *rest]] == rows(0, 5)

    def test_limit_is_kept_and_more_is_told(self, make_source: MakeSource, write: Write) -> None:
        """At most `limit` rows at once; `more` until the last."""
        source = make_source()
        write(rows(0, 7))
        cursor, sizes, more = None, [], []
        for _ in range(3):
            pulled = source.pull(cursor, 3)
            cursor = pulled.cursor
            sizes.append(len(pulled.rows))
            more.append(pulled.more)
        assert sizes == [3, 3, 1]
        assert more == [True, True, False]

    def test_ids_are_stable_and_distinct(self, make_source: MakeSource, write: Write) -> None:
        """The same row has the same id however it is read; two equal rows are two."""
        write([*rows(0, 5), *rows(0, 5)])
        at_once, _ = drain(make_source(), None)
        write(rows(5, 6))
        one_by_one, _ = drain(make_source(), None, limit=1)
        assert [row.id for row in one_by_one[:10]] == [row.id for row in at_once]
        assert len({row.id for row in one_by_one}) == 11

    def test_the_same_cursor_gives_the_same_rows(self, make_source: MakeSource, write: Write) -> None:
        """Where the ledger could not store a batch, it is pulled again."""
        source = make_source()
        write(rows(0, 5))
        cursor = source.pull(None, 2).cursor
        assert source.pull(cursor, 2).rows == source.pull(cursor, 2).rows

    def test_origin_is_the_same_across_restarts(self, make_source: MakeSource) -> None:
        """Cursors are filed under it."""
        assert make_source().origin == make_source().origin != ""
