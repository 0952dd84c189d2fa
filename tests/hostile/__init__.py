"""Files that someone means harm with: none is taken for a checkpoint, and none does anything.

`classes` are what is stored, `grammar` makes almost valid files of them from a string of choices,
`oracle` says what is wrong with how one is read, `fuzz` runs millions of them.
"""
