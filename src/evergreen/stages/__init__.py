"""The eight steps of the loop; each knows core only."""
