"""Benchmarks: one file a claim. Each prints a table and writes benchmarks/results/<name>-<device>.json."""
