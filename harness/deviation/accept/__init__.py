"""Known breaks: select cells, and write, renew or remove a break's file."""
