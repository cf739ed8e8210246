"""
The rules of HTTP and of the OCI distribution specification, as pure functions and values: no I/O,
no reactor, no state that outlives a message.

The messages, request targets, URLs and fields that other hosts send are parsed here.
"""
