"""From a Traditional Chinese news data set to a headline model served by Ollama, with proof at every step."""

__version__ = "0.1.0"
