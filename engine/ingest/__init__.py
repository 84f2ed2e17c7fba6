"""From what people have to checked shards: cleaning, duplicates, the data card."""
