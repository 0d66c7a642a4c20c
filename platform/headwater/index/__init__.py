"""What makes stored records findable: the indexer, and one topic's indexes."""
