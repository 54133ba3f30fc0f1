"""Adapters: one file per framework, each the only importer of its framework."""
