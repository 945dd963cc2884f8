"""What crosses the disk: the run folder's records, and the one writer that keeps them."""
