"""Makes the weights that ship: data, losses, one readable training loop, calibration, export."""
