"""Tensors to tensors, one architecture per file; zoo/ holds the small trained models that ship."""
