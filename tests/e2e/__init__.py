"""End-to-end tests: from the queue to the table."""
