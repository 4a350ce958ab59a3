"""What is learned: tables, propagation, modality branch, alignment, losses."""
