"""From lines to the few texts they are instances of."""
