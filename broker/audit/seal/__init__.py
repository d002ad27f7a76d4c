"""What makes the chains evidence: signed checkpoints over all of them, and proofs of single records."""
