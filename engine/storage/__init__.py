"""URIs to files: atomic puts, create-once, checksums. The only code that knows local from s3://."""
