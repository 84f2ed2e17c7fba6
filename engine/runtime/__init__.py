"""The run protocol: plan, parts, receipts, manifest; executors; verify."""
