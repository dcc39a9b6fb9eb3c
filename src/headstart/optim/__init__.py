"""How fast each layer group learns."""
