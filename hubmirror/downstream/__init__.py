"""
Towards the clients: what they ask, made ready once, and the bytes of the answer.
"""
