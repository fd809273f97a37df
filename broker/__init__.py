"""Everything about running an MQTT broker for the gateway."""
