"""``python -m titlegen.serve`` prints the text of serving/ollama/Modelfile.template."""

import sys

from titlegen.serve.source import render_template

if __name__ == "__main__":
    sys.stdout.write(render_template())
