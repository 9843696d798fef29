"""Pictures from the web: inspected before they are decoded, and decoded in a process whose crash costs one picture."""
