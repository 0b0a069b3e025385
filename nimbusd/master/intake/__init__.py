"""What comes in: jobs from clients, pieces from nodes, and what an output folder already holds."""
