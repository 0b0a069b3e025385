"""What this machine has, what of it we may use, and what is in use: cores, memory, control groups, GPUs."""
