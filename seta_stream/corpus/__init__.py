"""The corpus: URLs → shards → indexes → ids.

`indexing.open_corpus` is the way in. tar, header, fastruns, grouping, columns, sealed, index and ids are pure; listing,
scanning, places, building, indexing and bar act.
"""
