"""A record told to people, and handed to other systems."""
