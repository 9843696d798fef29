"""LAION-high-resolution: the columns of LAION-2B joined with LANGUAGE; both sides have 1,024 pixels and more."""

from dataclasses import replace

from curation.sources import laion2b

FORMAT = replace(laion2b.FORMAT, is_detected=False)
