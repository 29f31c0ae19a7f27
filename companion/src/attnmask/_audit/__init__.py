"""Ask whether a model obeys its mask. README.md beside this file says how to read it."""
