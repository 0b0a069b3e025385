"""Output folders: whose they are, what they remember, and what is thrown away."""
