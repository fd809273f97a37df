"""Frame scores to beats, episodes and findings. Knows data time only, and is deterministic."""
