"""Losses: rounding and histogram, the table, and what is kept of it on disk.

`histogram`, `table`, `sidecar`, `envelope` and `manifest` are pure; `generations` and what it uses (`drafts`,
`history`, `lock`) act, through the store.
"""
