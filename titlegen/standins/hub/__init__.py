"""A stand-in for the Hugging Face Hub on loopback: the requests that the real client sends."""
