"""From a request to a run folder: planning, the arms one after another, the closer look."""
