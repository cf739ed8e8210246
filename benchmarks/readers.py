"""
Measures clients that read slowly, or not at all.
"""

from __future__ import annotations

import fcntl
import socket
import ssl
import struct
import termios
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from h2.connection import H2Connection
from h2.settings import SettingCodes

from benchmarks.clients import HOST, TOKEN, CannotMeasure, Place, getKept, startBlobs
from benchmarks.contents import Item
from benchmarks.scale import Scale
from benchmarks.servers import Proxy
from benchmarks.usage import connections, settled
from benchmarks.world import World
from tests.integration.programs import eventually

#: Bytes per second of a slow reader.
_RATE = 64 * 1024
#: The size of a reader's receive buffer in the kernel.  By default, that of a stalled reader grows
#: to megabytes.
_RECEIVE_BUFFER = 64 * 1024
_RECORD = 16 * 1024
#: The largest flow-control window of HTTP/2 (RFC 9113, 6.9.1).  A stalled reader must not cost the
#: proxy more because of it.
_WINDOW = 2**31 - 1
_INITIAL_WINDOW = 65535
#: Seconds until the proxy has filled the kernel's buffers at full speed.
_SETTLING = 3

#: Options of h2load for the probe: one client requests a manifest fifty times a second.
_PROBE = ("-c1", "--rps=50")


def slow(proxy: Proxy, world: World, scale: Scale) -> dict[str, float]:
    """Measure readers at a steady 64 KiB/s, and requests for a manifest meanwhile."""
    proxy.restart()
    proxy.check([world.contents.manifest], "1.1")
    before = proxy.usage.memory()
    readers = [_open(proxy.place, world.contents.blob, "1.1") for _ in range(scale.slow)]
    stop = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(_readSlowly, readers, stop)
        try:
            time.sleep(_SETTLING)
            requests = getKept(proxy.place, world.contents.manifest, *_PROBE, f"-D{scale.seconds}")
            memory = (proxy.usage.memory() - before) / len(readers)
        finally:
            stop.set()
    _close(readers)
    title = f"{scale.slow} readers at 64 KiB/s"
    return {
        f"{title}: MiB for each": memory,
        f"{title}: got by the slowest, %": 100 * reading.result(),
        f"{title}: p99 of a manifest, ms": 1000 * requests.p99,
    }


def beside(proxy: Proxy, world: World, scale: Scale) -> dict[str, float]:
    """Measure requests for a manifest while four clients read as fast as they can."""
    loading = startBlobs(proxy.place, world.contents.blob, 4)
    try:
        requests = getKept(proxy.place, world.contents.manifest, *_PROBE, f"-D{scale.seconds}")
        if loading.poll() is not None:
            raise CannotMeasure(f"curl ended before the load of {proxy.name} was measured")
    finally:
        loading.terminate()
        loading.wait()
    return {"4 readers at full speed: p99 of a manifest, ms": 1000 * requests.p99}


def stalled(proxy: Proxy, world: World, scale: Scale, http: str) -> dict[str, float]:
    """
    Measure waves of readers that request the blob and then read nothing.

    @param http: C{1.1} or C{2}; each reader has a connection of its own with both.
    """
    proxy.restart()
    proxy.check([world.contents.manifest], http)
    usage = proxy.usage
    start = usage.memory()
    held: list[float] = []
    left: list[float] = []
    for _ in range(scale.waves):
        readers = [_open(proxy.place, world.contents.blob, http) for _ in range(scale.stalled)]
        held.append(settled(usage.memory, 0.25) - start)
        if min(map(_waiting, readers)) < _RECORD:
            raise CannotMeasure(f"{proxy.name} sent nothing to a reader that stalls")
        _close(readers)
        eventually(
            lambda: not connections(proxy.place.port), f"{proxy.name} lets go of clients that left"
        )
        left.append(settled(usage.memory, 0.25))
    title = f"{scale.stalled} stalled readers, HTTP/{http}"
    return {
        f"{title}: MiB for each, at most": max(held) / scale.stalled,
        f"{title}: MiB after wave 1": left[0],
        f"{title}: MiB after wave {scale.waves}": left[-1],
    }


def abandon(place: Place, item: Item, count: int) -> None:
    """Request an item several times, and close each connection when the response begins."""
    readers = [_open(place, item, "1.1") for _ in range(count)]
    for reader in readers:
        reader.recv(1)
    _close(readers)


def _open(place: Place, item: Item, http: str) -> ssl.SSLSocket:
    """Open a connection and request an item, without reading the response."""
    context = ssl.create_default_context(cafile=str(place.bundle))
    context.set_alpn_protocols(["h2" if http == "2" else "http/1.1"])
    plain = socket.socket()
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
    plain.settimeout(20)
    plain.connect((HOST, place.port))
    reader = context.wrap_socket(plain, server_hostname=HOST)
    if http == "2" and reader.selected_alpn_protocol() != "h2":
        raise CannotMeasure(f"{place.url} does not speak HTTP/2")
    reader.sendall(_http2(place.authority, item) if http == "2" else _http1(place.authority, item))
    return reader


def _http1(authority: str, item: Item) -> bytes:
    return f"GET {item.target} HTTP/1.1\r\nHost: {authority}\r\n{TOKEN}\r\n\r\n".encode()


def _http2(authority: str, item: Item) -> bytes:
    connection = H2Connection()
    connection.initiate_connection()
    connection.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: _WINDOW})
    connection.increment_flow_control_window(_WINDOW - _INITIAL_WINDOW)
    name, value = TOKEN.lower().split(": ")
    fields = {":method": "GET", ":scheme": "https", ":authority": authority, ":path": item.target}
    connection.send_headers(1, [*fields.items(), (name, value)], end_stream=True)
    return connection.data_to_send()


def _waiting(reader: ssl.SSLSocket) -> int:
    """The number of bytes in a reader's receive buffer."""
    count: int = struct.unpack("i", fcntl.ioctl(reader, termios.FIONREAD, bytes(4)))[0]
    return count


def _close(readers: Sequence[ssl.SSLSocket]) -> None:
    for reader in readers:
        reader.close()


def _readSlowly(readers: Sequence[ssl.SSLSocket], stop: threading.Event) -> float:
    """
    Read from each reader at L{_RATE} on average, in units of a TLS record, until C{stop} is set.

    @return: the share of the bytes due that the slowest reader received, at most 1.
    """
    for reader in readers:
        reader.setblocking(False)
    # Different initial values spread the reads of the readers over time.
    got = [_RECORD * index // len(readers) for index in range(len(readers))]
    due = 0
    began = time.monotonic()
    while not stop.wait(0.01):
        due = int((time.monotonic() - began) * _RATE)
        for index, reader in enumerate(readers):
            if due - got[index] >= _RECORD:
                got[index] += _read(reader, due - got[index])
    return min(1, (min(got) + _RECORD) / due)


def _read(reader: ssl.SSLSocket, length: int) -> int:
    """
    Read the bytes that are available, at most C{length}.

    @return: the number of bytes.
    @raise CannotMeasure: when the connection has ended.
    """
    left = length
    while left:
        try:
            data = reader.recv(min(left, _RECORD))
        except ssl.SSLWantReadError:
            break
        if not data:
            raise CannotMeasure("a connection ended under a slow reader")
        left -= len(data)
    return length - left
