"""The training side, held to the same contract."""
