"""The training side and the app against the contract, before a phone is attached."""
