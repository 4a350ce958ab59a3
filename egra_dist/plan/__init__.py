"""What a run will take, before it runs: memory and traffic per worker, neighbour search, steps."""
