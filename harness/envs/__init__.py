"""Pinned environments: how they are named, declared, locked, built and cached."""
