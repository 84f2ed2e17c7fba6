"""Contracts at the door: job specs, table schemas, states and reasons. Needs pydantic and pyarrow only."""
