"""
For the people who run the mirror.  What stands here listens to finished exchanges or looks from
outside; nothing that moves bytes knows of it.
"""
