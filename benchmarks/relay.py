"""
A relay that simulates distance: it forwards bytes in both directions with a delay.

It adds only latency, without a limit of bandwidth and without slow start.  The number of bytes in
transit on a connection is limited, as by a TCP window.  The first bytes of a connection are delayed
by a further round trip, because the TCP handshake with the relay itself takes no time.

C{python -m benchmarks.relay SECONDS FROM TO PORT...} relays connections from the ports of the
address C{FROM} to the same ports of the address C{TO}.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio import Queue, StreamReader, StreamWriter
from functools import partial

_PIECE = 64 * 1024
#: The greatest number of pieces in transit in one direction of a connection: 4 MiB.
_WINDOW = 64


async def _depart(
    reader: StreamReader, underWay: Queue[tuple[float, bytes]], stands: float
) -> None:
    """Record the departure of each piece, which is not before the simulated handshake ends."""
    piece = b"anything"
    while piece:
        piece = await reader.read(_PIECE)
        await underWay.put((max(_now(), stands), piece))


async def _arrive(underWay: Queue[tuple[float, bytes]], writer: StreamWriter, delay: float) -> None:
    piece = b"anything"
    while piece:
        left, piece = await underWay.get()
        await asyncio.sleep(left + delay - _now())
        writer.write(piece)
        await writer.drain()
    writer.write_eof()


def _now() -> float:
    return asyncio.get_running_loop().time()


async def _relay(
    delay: float, host: str, port: int, reader: StreamReader, writer: StreamWriter
) -> None:
    farReader, farWriter = await asyncio.open_connection(host, port)
    there: Queue[tuple[float, bytes]] = Queue(_WINDOW)
    back: Queue[tuple[float, bytes]] = Queue(_WINDOW)
    ways = [
        asyncio.create_task(way)
        for way in (
            _depart(reader, there, _now() + 2 * delay),
            _arrive(there, farWriter, delay),
            _depart(farReader, back, 0),
            _arrive(back, writer, delay),
        )
    ]
    # An error in either direction ends both.
    await asyncio.wait(ways, return_when=asyncio.FIRST_EXCEPTION)
    for way in ways:
        way.cancel()
    farWriter.close()
    writer.close()


async def _serve(delay: float, host: str, farHost: str, ports: list[int]) -> None:
    for port in ports:
        await asyncio.start_server(partial(_relay, delay, farHost, port), host, port)
    await asyncio.Event().wait()


if __name__ == "__main__":
    _delay, _from, _to, *_ports = sys.argv[1:]
    asyncio.run(_serve(float(_delay), _from, _to, list(map(int, _ports))))
