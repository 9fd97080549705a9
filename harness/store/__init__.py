"""Stored fixtures: manifests, blobs, goldens by device class, and what an adapter's files contain."""
