"""The machine: its cores, memory and GPUs, the part that control groups allow us, and what is in use."""
