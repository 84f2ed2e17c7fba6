"""One short page per thing a user can submit, and the command line."""
