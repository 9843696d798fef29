"""The recipe and its language: the TOML file as dataclasses, rules, and SQL for both engines."""
