"""Model outputs to table rows, one scorer per file; the predictor that loads once."""
