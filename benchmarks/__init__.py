"""Benchmarks: one file a claim. Each prints a table and writes benchmarks/results/<name>-<device>.json."""

import pipelines  # noqa: F401  before torch: it sets what a command's threads and its Ctrl-C do
