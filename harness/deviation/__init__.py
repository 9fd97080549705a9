"""One deviation followed up: where it starts, which library did it, how to show it, whether to accept it."""
