"""The commands: one file each, joined to the store here and nowhere else."""
