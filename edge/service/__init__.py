"""Installing the gateway on a machine: user, folders, units, D-Bus policy; and back."""
