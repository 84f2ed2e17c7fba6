"""Datasources and datasinks: VCF, BCF, Parquet to batches and back."""
