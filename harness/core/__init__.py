"""The vocabulary that every other package uses: errors, verdicts, runs, scenarios, observations."""
