"""The small C++ program that runs a bundle on a phone: its build, its protocol, its client."""
