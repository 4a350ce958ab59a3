"""How it is learned: the loop, batches, checkpoints, Ray workers."""
