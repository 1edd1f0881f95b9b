"""A stand-in for the Hugging Face Hub: what the real client asks of it, on loopback."""
