"""Latency trials: is a candidate slower than a baseline on this phone?"""
