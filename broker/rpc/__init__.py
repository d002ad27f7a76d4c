"""The gRPC face: messages and metadata become requests, and answers become messages."""
