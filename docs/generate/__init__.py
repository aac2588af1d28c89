"""Pages and pictures that follow from the code: the map of the rooms, the reference of options, the site's links.

`picture` writes into the repository, the hook `site` into the built site alone. Imports everything, nothing imports it.
"""
