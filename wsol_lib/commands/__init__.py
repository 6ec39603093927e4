"""The commands over the door of :mod:`wsol_lib.localizers`: train one and keep it, ask one for the boxes of a folder."""
