"""
Bytes in bulk, towards both sides: connections, TLS and HTTP as it stands on the wire.
"""
