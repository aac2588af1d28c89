"""Two small real policies, trained by this project's own supervised stage (`make bases`): `block` and `full`."""
