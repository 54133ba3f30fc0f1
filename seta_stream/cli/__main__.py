"""`python -m seta_stream.cli` is `seta-stream`."""

from seta_stream.cli import main

main(prog_name="seta-stream")
