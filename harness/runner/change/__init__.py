"""The check of a change: what it touches, both sides, and what is known already."""
