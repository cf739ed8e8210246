"""
What the specifications say: pure functions and values, no I/O, no reactor, no state.

Messages, targets, URLs and fields from outside are parsed here.
"""
