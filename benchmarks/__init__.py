"""
What a mirror costs, beside two nginx that do the same job. C{README.rst} tells how to run it.
"""
