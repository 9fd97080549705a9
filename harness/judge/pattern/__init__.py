"""Recognises patterns: what turns the golden's numbers into the replay's (pure)."""
