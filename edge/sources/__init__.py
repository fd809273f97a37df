"""Where chunks come from: MQTT wearables, replayed recordings, simulated wearables."""
