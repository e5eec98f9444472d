"""What perdure does in a second, beside what the disk allows."""
