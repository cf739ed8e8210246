"""
Tests of which responses are accepted as the rest of a body, and of which requests are not repeated.
"""

from __future__ import annotations

import json

from tests.upstream.broken import (
    BLOB,
    CDN,
    CDN2,
    DIGEST,
    HUB,
    PATH,
    SECOND,
    SIZE,
    TAG,
    ResumingCase,
)
from tests.upstream.support import Response


class AnswerTests(ResumingCase):
    """
    Responses that are accepted as the rest, and others.
    """

    def begun(self) -> None:
        first = self.begin()
        first.gives(BLOB[:300])
        self.cut(first)

    def test_ignoredRange(self) -> None:
        self.begun()
        self.inner.answer(Response(200, SIZE, ETag=TAG)).gives(BLOB)
        self.assertWhole()

    def test_earlierPart(self) -> None:
        self.begun()
        self.rest(200).gives(BLOB[200:])
        self.assertWhole()

    def test_shorterPart(self) -> None:
        self.begun()
        second = self.rest(300, 399)
        second.gives(BLOB[300:400])
        second.ends()
        self.clock.advance(0)
        self.assertEqual((self.uri, self.field(b"Range")), (CDN, [b"bytes=400-"]))
        self.rest(400).gives(BLOB[400:])
        self.assertWhole()

    def test_unusable(self) -> None:
        """An unusable response is abandoned, and the next URL is tried."""
        for answer in (
            Response(206, SIZE - 300),
            Response(206, SIZE - 301, Content_Range=b"bytes 301-1023/1024"),
            Response(206, 5, Content_Range=b"bytes 300-1023/1024"),
            Response(206, SIZE - 300, Content_Range=b"bytes 300-1023/1024, bytes 0-1/1024"),
            Response(206, 900, Content_Type=b"multipart/byteranges; boundary=x"),
            Response(416, 0, b"", Content_Range=b"bytes */1024"),
            Response(412, 0, b""),
            Response(304, 0, b""),
            Response(204, 0, b""),
            Response(200),
            Response(500, 0, b""),
        ):
            self.setUp()
            self.begun()
            self.inner.answer(answer)
            self.assertEqual(self.uri, HUB, answer.code)
            if answer.state != "ended":
                # Its body is discarded, so that its connection can be kept.
                self.assertEqual(answer.state, "flowing")
                answer.ends()
            self.rest(300).gives(BLOB[300:])
            self.assertWhole()

    def test_otherEntity(self) -> None:
        """Other bytes are not accepted as the rest: every URL is tried once."""
        self.begun()
        for uri in (CDN, HUB, SECOND):
            self.assertEqual(self.uri, uri)
            self.rest(300, Content_Range=b"bytes 300-1023/1025").ends()
        self.assertBroken()

    def test_otherEntityOfOneSource(self) -> None:
        """As long as another source has failed only temporarily, there are further attempts."""
        for fields in (
            {"ETag": b'"other"'},
            {"Content_Range": b"bytes 300-1023/1025"},
        ):
            self.setUp()
            self.begun()
            self.rest(300, **fields).ends()
            self.assertEqual(self.uri, HUB)
            self.refuse(503)
            self.refuse(503)
            self.clock.advance(0.5)
            self.assertEqual(self.uri, HUB)
            self.rest(300).gives(BLOB[300:])
            self.assertWhole()

    def test_otherTag(self) -> None:
        """Another store may have another tag for the same blob, whose digest is the same."""
        self.begun()
        self.refuse(403)
        self.redirect(CDN2)
        self.rest(300, ETag=b'"other"').gives(BLOB[300:])
        self.assertWhole()

    def test_tagOfTheSource(self) -> None:
        """The tag is compared with that of the last response from the same URL."""
        self.begun()
        self.refuse(403)
        self.redirect(CDN2)
        other = b'"other"'
        second = self.rest(300, ETag=other)
        second.gives(BLOB[300:400])
        self.cut(second)
        self.assertEqual((self.uri, self.field(b"If-Range")), (CDN2, [other]))
        third = self.rest(400, ETag=other)
        third.gives(BLOB[400:500])
        self.cut(third)
        self.rest(500, ETag=TAG).ends()
        self.assertEqual(self.uri, HUB)

    def test_weakTag(self) -> None:
        """A weak tag must not be used (RFC 9110 13.1.5)."""
        first = self.begin(Response(200, SIZE, ETag=b'W/"weak"'))
        first.gives(BLOB[:300])
        self.cut(first)
        self.assertIsNone(self.field(b"If-Range"))
        self.rest(300, ETag=b'W/"another"').gives(BLOB[300:])
        self.assertWhole()

    def test_chunked(self) -> None:
        """Of a body without a length, the missing part is not known."""
        first = self.begin(Response(200))
        first.gives(BLOB[:300])
        asked = len(self.inner.asked)
        self.cut(first)
        self.assertBroken()
        self.assertEqual(len(self.inner.asked), asked)


class RangeTests(ResumingCase):
    """
    Tests of the client's own ranges.
    """

    def begun(self, value: bytes, first: int, last: int, **fields: bytes) -> None:
        given = Response(
            206,
            last - first + 1,
            Content_Range=b"bytes %d-%d/%d" % (first, last, SIZE),
            ETag=TAG,
        )
        transfer = self.begin(given, Range=value, **fields)
        self.assertEqual(self.field(b"Range"), [value])
        transfer.gives(BLOB[first : first + 10])
        self.cut(transfer)

    def test_closed(self) -> None:
        self.begun(b"bytes=100-199", 100, 199)
        self.assertEqual(self.field(b"Range"), [b"bytes=110-199"])
        self.rest(110, 199).gives(BLOB[110:200])
        self.assertWhole(BLOB[100:200])
        self.assertEqual(self.answer.code, 206)

    def test_open(self) -> None:
        self.begun(b"bytes=100-", 100, SIZE - 1)
        self.assertEqual(self.field(b"Range"), [b"bytes=110-"])
        self.rest(110).gives(BLOB[110:])
        self.assertWhole(BLOB[100:])

    def test_suffix(self) -> None:
        self.begun(b"bytes=-24", 1000, SIZE - 1)
        self.assertEqual(self.field(b"Range"), [b"bytes=1010-"])
        self.rest(1010).gives(BLOB[1010:])
        self.assertWhole(BLOB[1000:])

    def test_ignored(self) -> None:
        """
        If a server ignores the range of the rest, the position is counted from the blob's
        beginning.
        """
        self.begun(b"bytes=100-199", 100, 199)
        whole = self.inner.answer(Response(200, SIZE, ETag=TAG))
        whole.gives(BLOB[:150])
        whole.gives(BLOB[150:])
        self.assertWhole(BLOB[100:200])
        self.assertEqual(whole.state, "stopped")

    def test_conditions(self) -> None:
        """The client's conditions were evaluated with the first response."""
        conditions = {
            "If_Match": b"*",
            "If_None_Match": b'"x"',
            "If_Modified_Since": b"Mon, 01 Jan 2024 00:00:00 GMT",
            "If_Unmodified_Since": b"Mon, 01 Jan 2024 00:00:00 GMT",
        }
        self.begun(b"bytes=100-199", 100, 199, If_Range=b'"mine"', **conditions)
        self.assertEqual(self.field(b"If-Range"), [TAG])
        for name in conditions:
            self.assertIsNone(self.field(name.replace("_", "-").encode()))

    def test_beforeTheFirstByte(self) -> None:
        """Before the first byte, the client's request is repeated."""
        given = Response(206, 100, Content_Range=b"bytes 100-199/1024")
        transfer = self.begin(given, Range=b"bytes=100-199", If_Range=b'"mine"')
        self.cut(transfer)
        self.assertEqual(self.field(b"Range"), [b"bytes=100-199"])
        self.assertEqual(self.field(b"If-Range"), [b'"mine"'])
        self.rest(100, 199).gives(BLOB[100:200])
        self.assertWhole(BLOB[100:200])

    def test_several(self) -> None:
        """A response with several ranges is passed on, and not resumed."""
        boundary = b"multipart/byteranges; boundary=a"
        transfer = self.begin(Response(206, 500, Content_Type=boundary), Range=b"bytes=0-9,20-29")
        transfer.gives(b"--a\r\n")
        asked = len(self.inner.asked)
        self.cut(transfer)
        self.assertBroken()
        self.assertEqual(len(self.inner.asked), asked)

    def test_severalBeforeTheFirstByte(self) -> None:
        """
        A repeated response with several ranges is used only if it has the same boundary as the head
        that the client was sent.
        """
        for second, fits in ((b"b", False), (b"a", True)):
            self.setUp()
            boundary = b"multipart/byteranges; boundary="
            transfer = self.begin(
                Response(206, 500, Content_Type=boundary + b"a"), Range=b"bytes=0-9,20-29"
            )
            self.cut(transfer)
            again = self.inner.answer(Response(206, 500, Content_Type=boundary + second))
            self.assertEqual(self.uri, CDN if fits else HUB)
            self.answer.stopProducing()
            self.assertEqual(again.state, "stopped" if fits else "flowing")

    def test_contradiction(self) -> None:
        """A part with contradictory lengths is passed on, and not resumed."""
        given = Response(206, 5, Content_Range=b"bytes 0-9/1024")
        transfer = self.begin(given, Range=b"bytes=0-9")
        asked = len(self.inner.asked)
        transfer.gives(BLOB[:5])
        transfer.ends()
        self.clock.advance(0)
        self.assertEqual(self.receiver.data, BLOB[:5])
        self.assertEqual(len(self.inner.asked), asked)


class OtherThingTests(ResumingCase):
    """
    Tests of anything but blobs.
    """

    MANIFEST = b"/v2/library/x/manifests/latest"

    def begun(self, path: bytes = MANIFEST, **fields: bytes) -> Response:
        asking = self.ask(path)
        first = self.inner.answer(Response(200, 10, **fields))
        self.read(asking)
        return first

    def test_beforeTheFirstByte(self) -> None:
        """Before the first byte, the whole is requested again."""
        for path in (
            self.MANIFEST,
            b"/v2/library/x/tags/list",
            b"/v2/library/x/referrers/" + DIGEST,
        ):
            self.setUp()
            self.cut(self.begun(path))
            self.assertEqual(self.uri, b"https://hub.example" + path)
            self.assertIsNone(self.field(b"Range"))
            self.inner.answer(Response(200, 10)).gives(b"0123456789")
            self.assertWhole(b"0123456789")

    def test_afterTheFirstByte(self) -> None:
        """After the first byte, it is not known whether the rest belongs to the same content."""
        for path in (self.MANIFEST, b"/v2/library/x/tags/list"):
            self.setUp()
            first = self.begun(path)
            first.gives(b"0")
            asked = len(self.inner.asked)
            self.cut(first)
            self.assertBroken()
            self.assertEqual(len(self.inner.asked), asked)

    def test_another(self) -> None:
        """A tag may have been moved meanwhile: the client has the digest of the first manifest."""
        self.cut(self.begun(ETag=b'"one"'))
        for _ in range(3):
            self.inner.answer(Response(200, 10, ETag=b'"two"')).ends()
        self.assertBroken()

    def test_otherDigest(self) -> None:
        """
        The head of one manifest is not continued with the body of another, even if the length is
        the same and there is no strong tag.
        """
        for length in (10, None):
            for one, two, fits in ((b"1", b"1", True), (b"1", b"2", False)):
                self.setUp()
                asking = self.ask(self.MANIFEST)
                first = self.inner.answer(Response(200, length, Docker_Content_Digest=one))
                self.read(asking)
                self.cut(first)
                again = self.inner.answer(Response(200, length, Docker_Content_Digest=two))
                if fits:
                    again.gives(b"0123456789")
                    again.ends()
                    self.assertWhole(b"0123456789")
                else:
                    self.inner.answer(Response(200, length, Docker_Content_Digest=two))
                    self.assertEqual(self.uri, b"https://second.example" + self.MANIFEST)

    def test_otherTagOfUnknownLength(self) -> None:
        asking = self.ask(self.MANIFEST)
        first = self.inner.answer(Response(200, ETag=b'W/"one"'))
        self.read(asking)
        self.cut(first)
        for _ in range(2):
            self.inner.answer(Response(200, ETag=b'W/"two"'))
        self.assertEqual(self.uri, b"https://second.example" + self.MANIFEST)

    def test_otherLength(self) -> None:
        self.cut(self.begun())
        for _ in range(3):
            self.inner.answer(Response(200, 11)).ends()
        self.assertBroken()

    def test_ofUnknownLength(self) -> None:
        asking = self.ask(self.MANIFEST)
        first = self.inner.answer(Response(200, Content_Type=b"a/b"))
        self.read(asking)
        self.cut(first)
        second = self.inner.answer(Response(200, Content_Type=b"a/b"))
        second.gives(b"0")
        second.ends()
        self.assertWhole(b"0")

    def test_once(self) -> None:
        """HEAD and pushes are never repeated."""
        for method, status in (
            (b"HEAD", 200),
            (b"PUT", 201),
            (b"POST", 202),
            (b"PATCH", 202),
            (b"DELETE", 202),
        ):
            self.setUp()
            asking = self.ask(PATH, method)
            first = self.inner.answer(Response(status, 10))
            self.read(asking)
            self.cut(first)
            self.clock.advance(100)
            self.assertIsNotNone(self.receiver.ended)
            self.assertFalse(self.receiver.isWhole)
            self.assertEqual(len(self.inner.asked), 1, method)
            self.assertNothingLeft()

    def test_head(self) -> None:
        """The response to a HEAD is passed on unchanged."""
        asking = self.ask(PATH, b"HEAD")
        response = self.inner.answer(Response(200, 0, Content_Length=b"1024"))
        self.assertIs(self.successResultOf(asking), response)

    def test_limited(self) -> None:
        """A 429 that is repeated from memory has no connection that could break."""
        self.options = {"fallback": ()}
        self.setUp()
        for _ in range(2):
            asking = self.ask(self.MANIFEST)
            if not self.inner.asked[-1].reply.called:
                body = json.dumps({"errors": []}).encode()
                self.inner.answer(Response(429, len(body), body, Content_Type=b"application/json"))
            self.read(asking)
            self.assertTrue(self.receiver.isWhole)
            self.assertEqual(self.answer.code, 429)
        self.assertEqual(len(self.inner.asked), 1)
