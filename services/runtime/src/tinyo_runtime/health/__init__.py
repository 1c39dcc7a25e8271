"""Whether the programs in containers do what they are there for (docs/decisions/0019-health.md).

`watch` checks each container again and again while it runs; `own` knows what its image says of it, `programs` and
`connections` are the ways to check, and `verdict` says what came of it.
"""
