"""Which tasks are there? One for each file of this folder; a new file is a new task."""
