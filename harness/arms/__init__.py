"""One way to run a case: torch, desktop, phone. One interface, three rooms."""
