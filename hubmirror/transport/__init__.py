"""
Connections, TLS, HTTP/1.1 and HTTP/2, to clients and to upstreams.
"""
