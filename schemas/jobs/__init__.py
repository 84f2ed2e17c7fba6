"""One job spec per file; the file name is the job name. Never imports tables.py: help must stay quick."""
