"""Benchmarks: each measures the platform against a peer and a physical limit in the same run, and tells ratios."""

NAMES = ("aggregate", "export", "growth", "hbase", "indexes", "ingest", "latency", "produce")
"""The modules of this folder that measure something; each has `measure(options)`."""
