"""How fast, how small, how safe: `python -m bench` measures all of it and writes docs/bench.md."""
