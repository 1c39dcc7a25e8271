"""Desired state, scheduling, reconciling."""
