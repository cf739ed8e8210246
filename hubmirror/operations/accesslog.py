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
    A request target in the form in which it may be logged: with the values of those query
    parameters only that never contain a secret (the state of an upload is signed), and without user
    information.
    """
    if not target.startswith(b"/") and b"@" in target:
        target = b"...@" + target.rpartition(b"@")[2]
    path, mark, query = target.partition(b"?")
    pairs = []
    for pair in query.split(b"&"):
        name, equals, _value = pair.partition(b"=")
        if pair and name not in _SHOWN:
            pair = name + b"=..." if equals else b"..."
        pairs.append(pair)
    text = path + mark + b"&".join(pairs)
    return _UNPRINTABLE.sub(lambda match: b"\\x%02x" % match[0][0], text).decode("ascii")


def logExchange(exchange: Exchange) -> None:
    """
    Log an exchange, as a warning if something went wrong.
    """
    client = "-" if exchange.client is None else exchange.client
    method = exchange.method.decode("ascii", "backslashreplace")
    size = exchange.sent + exchange.received
    line = f"{client} {method} {shownTarget(exchange.target)} {exchange.status or '-'} {size}B"
    line += f" {1000 * (exchange.seconds or 0):.0f}ms"
    if exchange.upstream is not None:
        line += f" from {exchange.upstream}"
    if exchange.outcome is not None:
        line += f" {exchange.outcome.value}"
    if exchange.resumes:
        line += f", resumed {exchange.resumes} times"
    for name, reason in exchange.failures:
        line += f"; {name}: {reason}"
    wrong = exchange.failures or exchange.outcome in (Outcome.FAILED, Outcome.BROKEN)
    # One field, formatted here: the logger's own formatting costs as much as the rest of a request.
    (_log.warn if wrong else _log.info)("{line}", line=line, exchange=exchange)
