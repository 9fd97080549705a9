"""Requests in, replies out: the process, its children, and the numerics that they run with."""
