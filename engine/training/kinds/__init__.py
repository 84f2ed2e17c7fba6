"""Kinds of samples that tasks take, one per file."""
