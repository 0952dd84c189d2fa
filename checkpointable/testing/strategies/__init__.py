"""Hypothesis strategies for checkpoint classes and their values."""
