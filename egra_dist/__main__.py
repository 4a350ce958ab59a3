"""``python -m egra_dist`` is ``egra-dist``."""

from egra_dist.cli import main

if __name__ == "__main__":
    main()
