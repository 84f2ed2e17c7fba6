"""The parts of the splice-mini recipe: data, windows, network, site and hexamer tables."""
