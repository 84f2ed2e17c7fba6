"""The sets of benchmarks/accuracy.py: each file names its own as BENCHES and brings a recipe of the same name.

A set of another kind than sequences is one more file: a `Prepared` (see _bench.py) that makes shards of the set, parts
them, and reads figures from what the training gave.
"""
