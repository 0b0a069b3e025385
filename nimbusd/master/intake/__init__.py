"""Intake: jobs from clients, pieces from nodes, and pieces that an output folder already holds."""
