"""`python -m scripts.dashboards` after a change of a panel or of a metric."""

from . import files

if __name__ == "__main__":
    files.write()
