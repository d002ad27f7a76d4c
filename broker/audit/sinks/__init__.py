"""Second sinks: where records go besides the files, which stay the record that all others are made from."""
