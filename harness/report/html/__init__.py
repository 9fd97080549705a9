"""The HTML report: one file without outside assets."""
