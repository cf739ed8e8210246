"""
The client side of the mirror: selecting an upstream, judging its responses, following redirects.
"""
