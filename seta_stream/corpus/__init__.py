"""The corpus: URLs → shards → indexes → ids.

`indexing.open_corpus` is the way in. Pure: tar, header, fastruns, grouping, columns, layout, sealed, index, ids.
Acting: listing, scanning, places, building, indexing, bar.
"""
