"""`python -m mmoe_ranker`: the same as the console script."""

from mmoe_ranker.cli import main

if __name__ == "__main__":
    main()
