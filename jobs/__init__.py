"""Thin scripts, one a verb: flags in, one call into the pipelines."""
