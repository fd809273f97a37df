"""A test-only emulation of BlueZ on a private D-Bus: unmodified bleak talks to it as to a real bluetoothd."""
