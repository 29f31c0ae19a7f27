"""Does a model obey its mask? README.md beside this file says how that is asked, and in which order to read."""
