"""`checkpointable report`: one HTML page of a run, with no script and nothing to load.

`report` is the command, `_data` reads the store, and `_page` writes the page: the `_timeline` and
pictures (`_png`) in the style of `_style`.
"""
