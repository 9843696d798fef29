"""The first two stages of a chain of toys, for the tests of chains."""

from __future__ import annotations

TEACHER_AND_STUDENT = """
[[stages]]
name = "teacher"
recipe = "debug"
[[stages]]
name = "mim"
recipe = "mim-debug"
teacher_from = "teacher"
"""
