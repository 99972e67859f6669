"""Benchmarks: each script times our way against what a user would otherwise run, both in one process, warmed up."""
