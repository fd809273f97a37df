"""What each kind of device wants written and subscribed to before it streams, and to stop. Decoding is elsewhere."""
