"""
The page for browsers.  It explains the mirror, and has each client's settings for it, a search, and
the state of the registries.
"""
