"""
The rules of the specifications, as pure functions and values without I/O, reactor and state.

Messages, request targets, URLs and fields that are received from other hosts are parsed here.
"""
