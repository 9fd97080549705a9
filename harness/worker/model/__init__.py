"""Bases and adapters: built, filled, quantised, wrapped."""
