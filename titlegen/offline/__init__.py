"""Stand-ins on loopback for machines without the Hugging Face Hub or without Ollama: the same wire protocols."""
