"""
What an operator sees of a running mirror: metrics, health and status, on a port of their own.

Nothing that serves requests knows of it.
"""
