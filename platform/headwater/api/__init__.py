"""The HTTP surface: every route is one call of one verb; errors are problem details; a guard stands before all of it."""
