"""
The side of the clients: their requests, and the responses that they are sent.
"""
