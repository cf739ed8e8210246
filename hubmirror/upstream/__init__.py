"""
The side of the upstreams: which one is asked, which responses are accepted, and where they lead.
"""
