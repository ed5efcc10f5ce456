"""The client's side: channels, connections and calls."""
