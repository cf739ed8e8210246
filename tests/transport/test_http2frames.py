"""
Tests of DATA frames that are created without h2.
"""

from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.settings import SettingCodes
from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from hubmirror.transport import http2frames
from hubmirror.transport.http2frames import BulkOutbound, Outbound, outbound
from tests.transport import test_http2server, test_http2stream
from tests.transport.http2client import REQUEST


class ChosenTests(SynchronousTestCase):
    def setUp(self) -> None:
        http2frames._works.cache_clear()
        self.addCleanup(http2frames._works.cache_clear)

    def test_chosen(self) -> None:
        """h2's own frames are used only with the option."""
        self.assertIs(type(outbound(H2Connection(), bulk=True)), BulkOutbound)
        self.assertIs(type(outbound(H2Connection(), bulk=False)), Outbound)

    def assertFallsBack(self, other: type[H2Connection]) -> None:
        self.patch(http2frames, "H2Connection", other)
        with capturedLogs() as events:
            for _ in range(2):
                self.assertIs(type(outbound(H2Connection(), bulk=True)), Outbound)
        self.assertEqual([event["log_level"] for event in events], [LogLevel.warn])

    def test_otherWindows(self) -> None:
        """An h2 that does not use C{outbound_flow_control_window}."""

        class Other(H2Connection):
            left = 65535

            def send_data(self, stream_id: int, data: bytes, **named: Any) -> None:
                super().send_data(stream_id, data, **named)
                self.left -= len(data)

            def local_flow_control_window(self, stream_id: int) -> int:
                return self.left

        self.assertFallsBack(Other)

    def test_withoutStreams(self) -> None:
        """An h2 without the attribute C{streams}."""

        class Other(H2Connection):
            @property
            def streams(self) -> Any:
                raise AttributeError

            @streams.setter
            def streams(self, value: Any) -> None:
                vars(self)["elsewhere"] = value

        self.assertFallsBack(Other)


class PlainSendingTests(test_http2server.SendingTests):
    plain = True


class PlainProducerTests(test_http2stream.ProducerTests):
    plain = True


class SameTests(SynchronousTestCase):
    @given(st.lists(st.integers(1, 40_000), max_size=8), st.integers(16384, 100_000))
    def test_same(self, sizes: list[int], most: int) -> None:
        """Both ways create the same bytes from the same payloads, among any other frames."""
        made = []
        for kind in (Outbound, BulkOutbound):
            client, server = H2Connection(), H2Connection(H2Configuration(client_side=False))
            client.initiate_connection()
            client.update_settings(
                {SettingCodes.INITIAL_WINDOW_SIZE: 2**20, SettingCodes.MAX_FRAME_SIZE: most}
            )
            client.increment_flow_control_window(2**20)
            client.send_headers(1, REQUEST, end_stream=True)
            server.receive_data(client.data_to_send())
            sender = kind(server)
            server.send_headers(1, [(b":status", b"200")])
            for size in sizes:
                sender.sendData(1, memoryview(bytes(n % 251 for n in range(size))))
                server.ping(b"%08d" % size)
            server.end_stream(1)
            made.append((sender.take(), server.local_flow_control_window(1)))
        self.assertEqual(*made)
