"""What leaves the house: exported vectors."""
