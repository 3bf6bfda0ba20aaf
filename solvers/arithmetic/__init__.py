"""What rounding may do to energies and bounds."""
