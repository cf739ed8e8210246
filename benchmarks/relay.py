"""
Distance: a relay that hands everything on some time later, in both directions.

Only time is added: there is no limit of bandwidth, and no slow start. What is under way on one
connection is bounded, as a TCP window bounds it. A connection's first bytes come two ways later
than others, since TCP's handshake with the relay itself takes no time.

C{python -m benchmarks.relay SECONDS FROM TO PORT...} takes connections on these ports of one
address to the same ports of the other.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio import Queue, StreamReader, StreamWriter
from functools import partial

_PIECE = 64 * 1024
#: Pieces under way, in one direction of one connection: 4 MiB.
_WINDOW = 64


async def _depart(
    reader: StreamReader, underWay: Queue[tuple[float, bytes]], stands: float
) -> None:
    """Note for each piece when it left, which is not before the connection stands."""
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
    # Whoever breaks off ends all of it.
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
