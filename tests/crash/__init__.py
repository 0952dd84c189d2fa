"""Every state that a crash can leave, and what a reader then finds.

`recorder` notes the system calls of a workload, `disk` says which states they can leave,
`explorer` builds each of them and asks a check; `workloads` and `promises` are ours.
"""
