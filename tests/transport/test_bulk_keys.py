"""
Tests of key updates.  TLS 1.3 may update its keys between any two records (RFC 8446, 4.6.3).  The
available libraries have no function for that, so the client of this test uses OpenSSL for the
handshake and creates its records itself.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from hypothesis import given
from hypothesis import strategies as st
from OpenSSL import SSL
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactorClock
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial.unittest import SynchronousTestCase

from hubmirror.transport.servertls import ServerTLS
from hubmirror.transport.tlsendpoints import inBulk
from tests import examples
from tests.transport.test_bulk import RECORD, SIZES
from tests.transport.tlspair import SERVER, End, Peer, bytesOf

HANDSHAKE, DATA = 22, 23
KEY_UPDATE = b"\x18\x00\x00\x01"

STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["write", "say"]), SIZES),
        st.tuples(st.just("renew"), st.integers(0, 1)),
        st.tuples(st.just("deliver"), st.integers(1, 2 * RECORD)),
        st.tuples(st.just("hear"), st.just(0)),
    ),
    max_size=30,
)


class Keys:
    """
    The keys of one direction, with C{TLS_AES_256_GCM_SHA384} (RFC 8446, 5 and 7).
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._cipher = AESGCM(self._derive(b"key", 32))
        self._iv = int.from_bytes(self._derive(b"iv", 12), "big")
        self._sequence = 0

    def _derive(self, label: bytes, length: int) -> bytes:
        label = b"tls13 " + label
        info = struct.pack("!HB", length, len(label)) + label + b"\0"
        return HKDFExpand(SHA384(), length, info).derive(self._secret)

    def renewed(self) -> Keys:
        return Keys(self._derive(b"traffic upd", 48))

    def _nonce(self) -> bytes:
        nonce = self._iv ^ self._sequence
        self._sequence += 1
        return nonce.to_bytes(12, "big")

    def seal(self, kind: int, content: bytes) -> bytes:
        head = struct.pack("!BHH", DATA, 0x0303, len(content) + 17)
        return head + self._cipher.encrypt(self._nonce(), content + bytes([kind]), head)

    def open(self, head: bytes, sealed: bytes) -> tuple[int, bytes]:
        """
        Decrypt the next record.

        @return: the type and the content of the record.
        """
        inner = self._cipher.decrypt(self._nonce(), sealed, head)
        return inner[-1], inner[:-1]


class Client:
    """
    The client.

    @ivar server: the server's side.
    @ivar got: the data that the server has sent.
    @ivar renewals: how often the server has updated its keys.
    """

    def __init__(self, bulk: bool) -> None:
        self.server = Peer()
        self.got = b""
        self.renewals = 0
        self._coming = self._leaving = b""
        reactor = MemoryReactorClock()
        self._advance = reactor.advance
        self._socket, other = socket.socketpair()
        self._socket.setblocking(False)
        other.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 60_000)
        options: Any = ServerTLS({"": SERVER.options()}) if bulk else SERVER.options()
        wrapped = Factory.forProtocol([self.server].pop)
        factory = TLSMemoryBIOFactory(options, False, wrapped, reactor)
        tls: Any = (inBulk(reactor, factory) if bulk else factory).buildProtocol(None)
        self._end = End(other, tls, reactor)
        tls.makeConnection(self._end)
        self._shakeHands()

    def _shakeHands(self) -> None:
        secrets: dict[bytes, bytes] = {}

        def learn(_: object, line: bytes) -> None:
            label, _random, secret = line.split()
            secrets[label] = bytes.fromhex(secret.decode())

        context = SSL.Context(SSL.TLS_METHOD)
        context.set_tls13_ciphersuites(b"TLS_AES_256_GCM_SHA384")
        context.set_keylog_callback(learn)
        tls = SSL.Connection(context)
        tls.set_connect_state()
        while not self.server.established:
            with contextlib.suppress(SSL.WantReadError):
                tls.do_handshake()
            self._socket.send(tls.bio_read(RECORD))
            self.turn()
            if not self.server.established:
                tls.bio_write(self._socket.recv(RECORD))
        self._theirs = Keys(secrets[b"SERVER_TRAFFIC_SECRET_0"])
        self._ours = Keys(secrets[b"CLIENT_TRAFFIC_SECRET_0"])

    def turn(self) -> None:
        self._advance(0)
        self._end.step(reading=True)
        self._end.step(reading=False)

    def say(self, data: bytes) -> None:
        for start in range(0, len(data), RECORD):
            self._leaving += self._ours.seal(DATA, data[start : start + RECORD])

    def renew(self, both: int) -> None:
        """Update these keys, and ask the server to update its own, or not."""
        self._leaving += self._ours.seal(HANDSHAKE, KEY_UPDATE + bytes([both]))
        self._ours = self._ours.renewed()

    def deliver(self, size: int) -> None:
        """Let the server read some bytes of what was sent."""
        with contextlib.suppress(BlockingIOError):
            sent = self._socket.send(self._leaving[:size])
            self._leaving = self._leaving[sent:]
        self._end.step(reading=True)

    def hear(self) -> None:
        """Decrypt everything that the server has sent."""
        with contextlib.suppress(BlockingIOError):
            while data := self._socket.recv(1 << 20):
                self._coming += data
        while len(self._coming) >= 5:
            end = 5 + int.from_bytes(self._coming[3:5], "big")
            if len(self._coming) < end:
                return
            kind, content = self._theirs.open(self._coming[:5], self._coming[5:end])
            self._coming = self._coming[end:]
            if kind == DATA:
                self.got += content
            elif content.startswith(KEY_UPDATE):
                self._theirs = self._theirs.renewed()
                self.renewals += 1

    def settle(self) -> None:
        still = 0
        while still < 5:
            before = len(self.got), len(self.server.got), len(self._leaving)
            self.deliver(len(self._leaving))
            self.turn()
            self.hear()
            now = len(self.got), len(self.server.got), len(self._leaving)
            still = still + 1 if now == before else 0

    def close(self) -> None:
        self._end.abortConnection()
        self._advance(0)
        self._socket.close()


class KeyUpdateTests(SynchronousTestCase):
    @examples(1)
    @given(st.booleans(), STEPS)
    def test_anywhere(self, bulk: bool, steps: list[tuple[str, int]]) -> None:
        """
        Data of both sides is mixed with key updates of either side, and split in any way: each byte
        arrives in its place, and the server updates its keys when it is asked to.
        """
        client = Client(bulk)
        said = wrote = b""
        asked = 0
        for number, (what, size) in enumerate(steps):
            if what == "write":
                wrote += bytesOf(size, number)
                client.server.transport.write(bytesOf(size, number))
            elif what == "say":
                said += bytesOf(size, number)
                client.say(bytesOf(size, number))
            elif what == "renew":
                asked += size
                client.renew(size)
            elif what == "deliver":
                client.deliver(size)
            else:
                client.hear()
        client.settle()
        # OpenSSL updates its own keys when it sends data the next time.
        wrote += b"last"
        client.server.transport.write(b"last")
        client.settle()
        self.assertIsNone(client.server.reason)
        self.assertTrue(client.server.got == said, "the server got something else")
        self.assertTrue(client.got == wrote, "the client got something else")
        # One update may answer several requests.
        self.assertEqual(client.renewals > 0, asked > 0)
        self.assertLessEqual(client.renewals, asked)
        client.close()
