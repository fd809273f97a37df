"""Wearables on Bluetooth Low Energy: found, connected, kept, and handed over as chunks.

bleak (BlueZ) brings bytes; a protocol's pure decoder makes frames of them; a `Session` places frames on the sample
grid and maps the device's clock to UTC; an `Outlet` hands chunks to intake and bounds what may wait.
"""
