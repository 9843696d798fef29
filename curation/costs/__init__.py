"""What a run would take before it begins: time, storage, requests and money, from measured slopes."""
