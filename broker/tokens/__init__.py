"""Tokens: reading them strictly, verifying them by the rules of their slot, and minting ours."""
