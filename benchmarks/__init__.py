"""Benchmarks: each module times our way against what a user would otherwise run, in one process and with equal answers.

`run(tiny)` of a module returns its figures; `tiny` takes the pocket model and a few examples, to try the code itself.
"""
