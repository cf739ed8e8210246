"""
What the specifications say: pure functions and values, no I/O, no reactor, no state.

Everything that comes from outside is parsed here and nowhere else.
"""
