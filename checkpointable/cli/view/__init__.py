"""What the commands show of a checkpoint.

`tree` and `statistics` describe values and arrays, `pictures` and `plot` draw arrays, `compare`
finds what differs between two checkpoints, and `expression` evaluates what `bisect` asks.
"""
