"""
The admin port of a running mirror, with its metrics, health and status.

The modules that serve requests do not import this package.
"""
