"""What screens are made of. A widget shows what it is given and says what a person did; it calls no verb."""
