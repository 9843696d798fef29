"""The text of a file for `curate plan --cluster`."""

CLUSTER = """
[machines]
nodes = 10
cores = 16
disk_gb = 900
network_gbit = 12.5
price_per_hour = 0.68
[storage]
price_per_gb_month = 0.02
price_per_million_puts = 5.0
price_per_million_gets = 0.4
months = 3
"""
