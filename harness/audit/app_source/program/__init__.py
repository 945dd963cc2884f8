"""What the code computes: who calls whom, and what a name, a value or a text comes to."""
