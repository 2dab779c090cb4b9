"""The ground floor: what every room speaks of. Nothing is imported here, so that each part costs only itself."""
