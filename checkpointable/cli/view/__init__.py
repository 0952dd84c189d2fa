"""What `show`, `diff` and `bisect` print: trees, statistics, pictures, plots, comparisons."""
