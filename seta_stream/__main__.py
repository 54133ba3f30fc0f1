"""`python -m seta_stream` is `seta-stream`."""

from seta_stream.cli import main

if __name__ == "__main__":  # a worker process may import this file again
    main(prog_name="seta-stream")
