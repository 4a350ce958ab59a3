"""The graph on a GPU: products of all pairs or of nearby lists, of which only maxima are kept."""
