"""
Parses C{Range} for a server (RFC 9110, 14.1.2 and 14.2).
"""

import re

# A longer number makes the field invalid.
_SPEC = re.compile("([0-9]{0,100})-([0-9]{0,100})")


def parseRange(value: str, size: int) -> list[tuple[int, int]] | None:
    """
    The parts of a representation that a C{Range} field asks for, in its order.

    @param value: the value of the field.
    @param size: the length of the representation in bytes.
    @return: pairs of the positions of a part's first byte and of the byte after its last; empty if
        no part exists (416); L{None} if the field is invalid and must be ignored.
    """
    unit, _, specs = value.partition("=")
    if unit.strip().lower() != "bytes":
        return None
    parts = []
    for spec in specs.split(","):
        match = _SPEC.fullmatch(spec.strip())
        if match is None:
            return None
        first, last = match.groups()
        if first:
            start, stop = int(first), min(int(last) + 1, size) if last else size
            if last and int(last) < start:
                return None
        elif last:
            start, stop = max(size - int(last), 0), size
        else:
            return None
        if start < stop:
            parts.append((start, stop))
    return parts
