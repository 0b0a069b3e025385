"""The ledger: the only truth about jobs, episodes and leases."""
