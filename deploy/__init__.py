"""What runs against a deployed stack, and what it is deployed as."""
