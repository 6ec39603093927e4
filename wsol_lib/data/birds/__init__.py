"""What a synthetic bird is made of: body plans, habitats, and the drawing of both; :mod:`wsol_lib.data.synthbirds` uses it."""
