"""What every Spark job shares: session, command line, and tasks mapped over units."""
