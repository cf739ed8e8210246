"""
The access log: one line for each exchange, without credentials and without signed queries.
"""

from __future__ import annotations

import re

from twisted.logger import Logger

from hubmirror.exchange import Exchange, Outcome

_SHOWN = frozenset(b"service scope n page last digest from mount q artifactType ns".split())
_UNPRINTABLE = re.compile(rb"[^\x21-\x7e]")

_log = Logger()


def shownTarget(target: bytes) -> str:
    """
    A request target as a log may show it: of its query only the values that are known to be
    harmless (an upload's state is signed, and who knows what a client writes), and of an absolute
    one no user information.
    """
    if not target.startswith(b"/") and b"@" in target:
        target = b"...@" + target.rpartition(b"@")[2]
    path, mark, query = target.partition(b"?")
    pairs = []
    for pair in query.split(b"&"):
        name, equals, _value = pair.partition(b"=")
        pairs.append(pair if not equals or name in _SHOWN else name + b"=...")
    text = path + mark + b"&".join(pairs)
    return _UNPRINTABLE.sub(lambda match: b"\\x%02x" % match[0][0], text).decode("ascii")


def logExchange(exchange: Exchange) -> None:
    """
    Write an exchange's line.  What went wrong is a warning.
    """
    wrong = exchange.failures or exchange.outcome in (Outcome.FAILED, Outcome.BROKEN)
    (_log.warn if wrong else _log.info)(
        "{client} {method} {shown} {status} {sent}B {millis}ms{via} {ended}{resumed}{failed}",
        client="-" if exchange.client is None else str(exchange.client),
        method=exchange.method.decode("ascii", "backslashreplace"),
        shown=shownTarget(exchange.target),
        status=exchange.status or "-",
        sent=exchange.sent + exchange.received,
        millis=round(1000 * (exchange.seconds or 0)),
        via="" if exchange.upstream is None else f" from {exchange.upstream}",
        ended="-" if exchange.outcome is None else exchange.outcome.value,
        resumed=f", resumed {exchange.resumes} times" if exchange.resumes else "",
        failed="".join(f"; {name}: {reason}" for name, reason in exchange.failures),
        exchange=exchange,
    )
