"""For tests: of programs that use perdure, and of stores that perdure is to use.

| module | what it is for | what it needs |
|---|---|---|
| `perdure.testing.conformance` | whoever writes a `Store` runs what every store must do | pytest |
| `perdure.testing.postgres` | a real PostgreSQL server, from pip alone, gone with its process | `perdure[testing]` |
| `perdure.testing.plugin` | the same as fixtures for pytest | `perdure[testing]` |

Nothing here is imported by the rest of perdure, and this module imports none of them.
"""
