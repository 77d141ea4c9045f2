"""What jobs do: a module for each kind."""
