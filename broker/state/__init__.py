"""What must be remembered between requests: spent one-time ids and withdrawn tokens."""
