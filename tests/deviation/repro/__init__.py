"""Tests of what `repro` writes."""
