"""Executors: the same stages in-process or on Ray Data; same plan, same parts, same bytes."""
