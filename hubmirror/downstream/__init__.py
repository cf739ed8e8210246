"""
The server side of the mirror: the requests of clients, and the responses to them.
"""
