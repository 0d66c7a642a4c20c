"""Labels, values and routes for what streams hold: decided once for each passage, inherited by every record of it."""
