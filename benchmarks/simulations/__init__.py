"""Simulations, which measure no machine: what failures cost a run, by how often it saves."""
