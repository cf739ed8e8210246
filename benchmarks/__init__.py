"""
Measures what a mirror costs, in comparison with two nginx that do the same.  C{README.rst} explains
how to run the benchmarks.
"""
