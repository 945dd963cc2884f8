"""Hops, statistics and gates -> PASS / FAIL / INCONCLUSIVE / INFRA."""
