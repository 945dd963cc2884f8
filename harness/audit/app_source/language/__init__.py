"""Kotlin, Java, C and C++ lowered to one small tree."""
