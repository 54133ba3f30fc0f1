"""The demo: corpora made on the spot, a small text recogniser, and both ways of training it side by side.

Takes a folder, sizes and a seed; gives tar shards, two trained models, a table and a picture. Effects: writes under the
folder that it is given and shows progress on stderr. Pillow, torch and matplotlib are imported where they are used.
"""
