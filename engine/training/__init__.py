"""Models made from data: sample plan, loop, tasks, checkpoints."""
