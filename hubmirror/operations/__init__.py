"""
Tools for operators: the access log, start messages, the doctor, settings for clients, and the demo.

These modules get finished exchanges or test a mirror from outside.  The modules that serve requests
do not import them.
"""
