"""Why a model answers as it does: attributions, their tracks and logos, and the motifs that lie under them."""
