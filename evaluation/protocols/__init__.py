"""Published protocols, one file each: what counts as right, and how it is averaged."""
