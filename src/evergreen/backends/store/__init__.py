"""Where datasets and models are kept: immutable folders by key."""
