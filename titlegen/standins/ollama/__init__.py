"""A stand-in for Ollama: its REST API over llama.cpp, on loopback."""
