"""Removing from the folder what nobody will read again."""

from __future__ import annotations

from evergreen.backends.runner.folder.book import Book, Row
from evergreen.core.ports import Store
from evergreen.job.far import protocol
from evergreen.job.far.protocol import Keys


def tidy(store: Store, row: Row) -> None:
    """Remove checkpoints, offers, and the models and evaluations of attempts that did not count."""
    keys = Keys(row.ticket.run)
    for key in store.list(keys.root):
        if key.startswith(keys.offers + "/") or (protocol.step_of(key) >= 0 and key.split("/")[3] in row.marks):
            store.delete(key)
    for mark in row.marks:
        if row.closed != "done" or mark != row.mark:
            attempt, _, nonce = mark.partition("-")
            store.delete(protocol.marked(row.ticket, int(attempt), nonce).out)
            store.delete(keys.evaluation(mark))


def prune(store: Store, book: Book, keep: int) -> None:
    """Remove all small files of runs that are over, but for the newest `keep`."""
    over = sorted((row for row in book.rows().values() if row.tidy), key=lambda row: row.created, reverse=True)
    for row in over[keep:]:
        if not book.wanted(row.ticket.run):
            for key in store.list(Keys(row.ticket.run).root):
                store.delete(key)
            book.forget(row)
