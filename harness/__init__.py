"""The evaluation: contract, cases, arms, journal, comparison, verdict."""
