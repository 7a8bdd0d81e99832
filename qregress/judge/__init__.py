"""Numbers to verdicts. Never touches a device, imports no torch."""
