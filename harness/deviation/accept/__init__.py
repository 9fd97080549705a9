"""Known deviations: select, write, renew and remove their entries."""
