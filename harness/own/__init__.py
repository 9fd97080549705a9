"""A user's own adapter: what it is, which release wrote it, which known breaks it meets, and how it does elsewhere."""
