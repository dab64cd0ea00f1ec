"""A short answer is one packet; nothing is kept back for longer than a turn of the event loop, or in another order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from hypothesis import given
from hypothesis import strategies as st

from evergreen.http.packets import Packets


class Transport:
    """Notes what reaches it."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        assert not self.closed
        self.written.append(data)

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


def run(act: Callable[[Packets, Transport], Awaitable[None]]) -> Transport:
    transport = Transport()

    async def go() -> None:
        await act(Packets(transport, asyncio.get_running_loop()), transport)  # type: ignore[arg-type]

    asyncio.run(go())
    return transport


def test_head_and_body_are_one_packet() -> None:
    async def act(packets: Packets, transport: Transport) -> None:
        packets.write(b"head ")
        assert not transport.written
        packets.write(b"body")
        assert transport.written == [b"head body"]

    assert run(act).written == [b"head body"]


def test_a_head_alone_goes_out_at_the_end_of_the_turn() -> None:
    async def act(packets: Packets, transport: Transport) -> None:
        packets.write(b"head")
        await asyncio.sleep(0)
        assert transport.written == [b"head"]
        packets.write(b"an event, much later")
        await asyncio.sleep(0)

    assert run(act).written == [b"head", b"an event, much later"]


def test_what_is_kept_back_goes_out_before_the_end() -> None:
    async def act(packets: Packets, _: Transport) -> None:
        packets.write(b"408")
        packets.close()

    transport = run(act)
    assert transport.written == [b"408"]
    assert transport.closed


@given(st.lists(st.one_of(st.binary(max_size=8), st.none()), max_size=20))
def test_whatever_is_written_arrives_in_order(pieces: list[bytes | None]) -> None:
    async def act(packets: Packets, _: Transport) -> None:
        for piece in pieces:  # None: the event loop turns
            if piece is None:
                await asyncio.sleep(0)
            else:
                packets.write(piece)
        packets.close()

    assert b"".join(run(act).written) == b"".join(filter(None, pieces))
