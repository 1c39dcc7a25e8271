"""Runs containers on one machine, and decides nothing."""
