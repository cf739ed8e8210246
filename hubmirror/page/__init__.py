"""
The page for browsers: what this is, each client's settings for this mirror, a search, and the
state of the registries.
"""
