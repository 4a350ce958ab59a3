"""Who is linked: item graph, behaviour graph, partitions."""
