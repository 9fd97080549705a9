"""Plans cells, has workers compute them, and keeps the run."""
