"""Every branch on a library's version, each with the release that made it necessary."""
