"""What runs on the factory floor: decode, tile, predict, verdict, drift. It imports no torch."""
